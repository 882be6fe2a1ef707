"""The page's script: details of a point under the pointer or the focus, sorted tables, copied texts."""

SCRIPT = """
(function () {
  "use strict";
  const all = (selector, inside) => Array.from((inside || document).querySelectorAll(selector));

  // Details of a point: its label, and the knobs from its row in the table of trials.
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);
  function knobs(point) {
    const row = document.getElementById((point.getAttribute("href") || "").slice(1));
    if (!row) return [];
    return all("th", row.closest("table")).flatMap((head, i) => {
      const cell = row.cells[i];
      return cell.querySelector("code") ? [head.dataset.name + ": " + cell.textContent] : [];
    }).slice(0, 12);
  }
  function show(point) {
    const lines = (point.dataset.tip || point.getAttribute("aria-label")).split("\\n").concat(knobs(point));
    tip.replaceChildren(...lines.map((text, i) => {
      const line = document.createElement(i ? "div" : "strong");
      line.textContent = text;
      return line;
    }));
    tip.hidden = false;
    const box = point.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const x = Math.min(Math.max(8, box.left + box.width / 2 + 12), innerWidth - own.width - 8);
    const above = box.top - own.height - 10;
    tip.style.left = x + scrollX + "px";
    tip.style.top = (above > 0 ? above : box.bottom + 10) + scrollY + "px";
  }
  const hide = () => { tip.hidden = true; };
  all(".pt").forEach(point => {
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("focus", () => show(point));
    point.addEventListener("blur", hide);
  });

  // One stop of the Tab key for each chart; the arrow keys go from point to point.
  all("svg.plot").forEach(chart => {
    const points = all("a.pt", chart).sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left);
    points.forEach((point, i) => point.setAttribute("tabindex", i ? "-1" : "0"));
    chart.addEventListener("keydown", event => {
      const by = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      const at = points.indexOf(document.activeElement);
      if (event.key === "Escape") hide();
      if (!by || at < 0) return;
      event.preventDefault();
      const next = points[(at + by + points.length) % points.length];
      points.forEach(point => point.setAttribute("tabindex", point === next ? "0" : "-1"));
      next.focus();
    });
  });

  function open(id) {
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let around = target.parentElement; around; around = around.parentElement)
      if (around.tagName === "DETAILS") around.open = true;
    all("tr.shown").forEach(other => other.classList.remove("shown"));
    if (target.tagName === "TR") target.classList.add("shown");
    target.scrollIntoView({block: target.tagName === "TR" ? "center" : "start"});
  }
  addEventListener("hashchange", () => open(location.hash.slice(1)));
  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#']");
    if (link) {
      hide();
      open(link.getAttribute("href").slice(1));
    }
    const copy = event.target.closest("[data-copy]");
    if (copy && navigator.clipboard) {
      navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent)
        .then(() => { copy.textContent = "Copied"; });
    }
  });
  open(location.hash.slice(1));

  // Tables that can be sorted: each head becomes a button.
  function key(row, column) {
    const cell = row.cells[column], exact = cell.querySelector("[data-sort]");
    const text = exact ? exact.dataset.sort : cell.textContent;
    const number = parseFloat(text.replace("\\u2212", "-"));
    return [Number.isNaN(number) ? Infinity : number, text];
  }
  function sort(head, column) {
    const body = head.closest("table").tBodies[0], up = head.getAttribute("aria-sort") !== "ascending";
    all("th", head.parentElement).forEach(other => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = Array.from(body.rows).map(row => [key(row, column), row]);
    rows.sort(([a], [b]) => (up ? 1 : -1) * ((a[0] > b[0]) - (a[0] < b[0]) || a[1].localeCompare(b[1])));
    rows.forEach(([, row]) => body.append(row));
  }
  all("th").forEach(head => { head.dataset.name = head.firstChild ? head.firstChild.textContent : ""; });
  all("table.sortable th").forEach(head => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => sort(head, head.cellIndex));
  });
})();
"""
