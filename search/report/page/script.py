"""The page's script: draws charts in the style's colours, sorts the table of trials, opens clicked trials."""

SCRIPT = """
(function () {
  "use strict";
  const specs = JSON.parse(document.getElementById("charts").textContent);
  const config = {displaylogo: false, responsive: true,
                  modeBarButtons: [["zoom2d", "pan2d", "resetScale2d", "toImage"]]};

  function themed(value) {
    if (typeof value === "string") {
      const found = /^var\\((--[a-z]+)\\)$/.exec(value);
      return found ? getComputedStyle(document.documentElement).getPropertyValue(found[1]).trim() : value;
    }
    if (Array.isArray(value)) return value.map(themed);
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner)]));
    return value;
  }

  function layoutOf(own) {
    const axis = {title: {font: {size: 12.5}}, gridcolor: "var(--rule)", linecolor: "var(--rule)", zeroline: false, automargin: true};
    const layout = Object.assign({
      font: {family: getComputedStyle(document.body).fontFamily, size: 12.5, color: "var(--ink)"},
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: {l: 56, r: 12, t: 12, b: 44}, hovermode: "closest",
      hoverlabel: {bgcolor: "var(--raised)", bordercolor: "var(--rule)", align: "left",
                   font: {color: "var(--ink)", size: 12.5}},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: "var(--faint)", activecolor: "var(--accent)"},
    }, own);
    for (const name of ["xaxis", "yaxis"]) {
      layout[name] = Object.assign({}, axis, own[name]);
      layout[name].title = Object.assign({}, axis.title, (own[name] || {}).title);
    }
    layout.legend = Object.assign({orientation: "h", y: 1.02, yanchor: "bottom", x: 0}, own.legend);
    return themed(layout);
  }

  function openTrial(number) {
    const row = document.getElementById("trial-" + number), folded = document.getElementById("all-trials");
    if (!row || !folded) return;
    folded.open = true;
    document.querySelectorAll("tr.shown").forEach(other => other.classList.remove("shown"));
    row.classList.add("shown");
    row.scrollIntoView({block: "center"});
  }

  function draw(first) {
    for (const [id, spec] of Object.entries(specs)) {
      const element = document.getElementById(id);
      Plotly.react(element, themed(spec.traces), layoutOf(spec.layout),
                   Object.assign({}, config, {displayModeBar: spec.zoomable ? "hover" : false}));
      if (first) element.on("plotly_click", event => {
        const number = event.points[0].customdata;
        if (number !== undefined) openTrial(number);
      });
    }
  }

  if (window.Plotly) {
    draw(true);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(false));
  }

  document.addEventListener("click", event => {
    const link = event.target.closest("a.trial");
    if (link) { event.preventDefault(); openTrial(link.hash.replace("#trial-", "")); }
    const copy = event.target.closest("[data-copy]");
    if (copy && navigator.clipboard) {
      navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent)
        .then(() => { copy.textContent = "Copied"; });
    }
  });

  function sortKey(row, column) {
    const cell = row.cells[column], exact = cell.querySelector("[data-sort]");
    const text = exact ? exact.dataset.sort : cell.textContent;
    const number = parseFloat(text);
    return [Number.isNaN(number) ? Infinity : number, text];
  }

  document.querySelectorAll("#all-trials th").forEach((head, column) => head.addEventListener("click", () => {
    const body = head.closest("table").tBodies[0], up = head.dataset.sorted !== "up";
    document.querySelectorAll("#all-trials th").forEach(other => other.removeAttribute("data-sorted"));
    head.dataset.sorted = up ? "up" : "down";
    const rows = Array.from(body.rows).map(row => [sortKey(row, column), row]);
    rows.sort(([a], [b]) => (up ? 1 : -1) * (a[0] - b[0] || a[1].localeCompare(b[1])) || 0);
    rows.forEach(([, row]) => body.append(row));
  }));
})();
"""
