"""The page's style: one column of text, system fonts, light and dark."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--raised:#f6f7f9;--ink:#1b2026;--muted:#5c6670;--rule:#e1e5ea;
--accent:#0a6c96;--second:#d08a2e;--faint:#b3bbc4;--warm:#cc5a16;--good:#23744a;--bad:#b03a3a}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--raised:#1d2126;--ink:#e4e8ec;--muted:#9aa5b0;
--rule:#2d343b;--accent:#58b4dd;--second:#e0ad62;--faint:#5f6973;--warm:#f28d4e;--good:#6cc595;--bad:#ea8585}}
*{box-sizing:border-box}
html{scroll-behavior:smooth}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1240px;margin:0 auto;padding:0 24px}
header{padding-top:44px}
.eyebrow{margin:0;color:var(--muted);font-size:14px;letter-spacing:.02em}
h1{margin:2px 0 18px;font-size:30px;line-height:1.2;letter-spacing:-.01em;overflow-wrap:anywhere}
.answer{margin:0 0 8px;font-size:20px;line-height:1.45;max-width:58em;overflow-wrap:anywhere}
.answer.none{border-left:4px solid var(--bad);padding-left:14px}
.strip{display:flex;flex-wrap:wrap;gap:10px 36px;margin:24px 0 8px;padding:16px 0;border-block:1px solid var(--rule)}
.strip div{display:flex;flex-direction:column-reverse}
.strip dt{color:var(--muted);font-size:13px}
.strip dd{margin:0;font-size:20px;font-weight:600}
dl{margin:0}
nav{display:flex;flex-wrap:wrap;gap:4px 20px;margin:12px 0 0;font-size:14px}
a{color:var(--accent);text-decoration:none}
a:hover,a:focus-visible{text-decoration:underline}
section{margin-top:52px;scroll-margin-top:12px}
h2{margin:0 0 6px;font-size:22px;letter-spacing:-.005em}
h3{margin:26px 0 8px;font-size:16px}
.lead,.method{max-width:54em;color:var(--muted)}
.lead{margin:0 0 14px}
.method{font-size:13.5px}
p{max-width:54em}
.finding{padding:12px 16px;background:var(--raised);border-left:4px solid var(--accent);border-radius:0 6px 6px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,500px),1fr));gap:20px}
.cards>p{grid-column:1/-1;margin:0}
article{padding:4px 20px 16px;border:1px solid var(--rule);border-radius:10px;min-width:0}
article h3{margin:14px 0 2px;font-size:17px}
article>p{margin:4px 0 10px;color:var(--muted)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:8px 28px}
figure{margin:8px 0 16px;min-width:0}
figcaption{font-size:14px;font-weight:600;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.4}
th,td{padding:7px 14px 7px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:0}
th{color:var(--muted);font-weight:600;vertical-align:bottom}
th small{display:block;font-weight:400}
th[data-sorted]::after{content:" ↓";color:var(--accent)}
th[data-sorted=up]::after{content:" ↑"}
#all-trials th{cursor:pointer}
.num{text-align:right}
td.num,td code{white-space:nowrap}
td code.long{white-space:normal}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
td code{font-size:12.5px}
.interval,.quiet{color:var(--muted)}
.interval{font-size:12.5px}
.source{display:inline-block;padding:0 6px;border:1px solid var(--rule);border-radius:9px;color:var(--muted);
font-size:11px;line-height:16px;white-space:nowrap}
.source.modelled{border-style:dashed}
.source.estimated{border-style:dotted}
.state.complete{color:var(--good)}
.state.infeasible,.state.failed{color:var(--bad)}
.state.pruned{color:var(--muted)}
tr:target td,tr.shown td{background:var(--raised);box-shadow:inset 0 1px var(--accent),inset 0 -1px var(--accent)}
details{margin:10px 0}
summary{cursor:pointer;color:var(--accent);font-size:14px}
ul.inline{display:flex;flex-wrap:wrap;gap:4px 22px;margin:0 0 12px;padding:0;list-style:none;font-size:14px}
.command{display:flex;gap:12px;align-items:flex-start;background:var(--raised);border-radius:8px;padding:14px 16px}
.command pre{flex:1;margin:0;white-space:pre-wrap}
pre{overflow-x:auto}
button{font:inherit;font-size:13px;padding:3px 12px;border:1px solid var(--rule);border-radius:6px;
background:var(--paper);color:var(--ink);cursor:pointer}
.bar{display:inline-block;width:90px;height:8px;margin-right:10px;border-radius:4px;
background:linear-gradient(to right,var(--accent) var(--share),var(--rule) var(--share))}
svg.plot{display:block;width:100%;max-width:480px;height:auto;font-size:13px;fill:var(--ink)}
.plot .quiet{fill:var(--muted)}
.plot .bold{font-weight:600}
.plot .bad{fill:var(--bad)}
.plot .loss{fill:var(--accent)}
.plot .chosen{fill:var(--paper);stroke:var(--warm);stroke-width:1.5}
.plot .rule{stroke:var(--rule)}
.plot .curve{fill:none;stroke:var(--accent);stroke-width:2}
.plot .trial{fill:var(--muted)}
.plot .pick{fill:none;stroke:var(--warm);stroke-width:2.5}
.plot .budget{stroke:var(--bad);stroke-dasharray:5 4}
footer{margin-top:64px;padding-block:18px 40px;border-top:1px solid var(--rule);color:var(--muted);font-size:13px}
@media print{nav,button{display:none}section{break-inside:avoid-page}}
"""
