"""The page's style: system fonts, light and dark, one column on a narrow screen, and a version for paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#fff;--raised:#f6f7f9;--ink:#1b2026;--muted:#56606a;--rule:#dfe3e8;
--accent:#0a6c96;--second:#b26a00;--faint:#98a2ac;--warm:#c24f0f;--good:#1f6e45;--bad:#b03a3a;
--track:#e6eaee;--c2:#6d4fb3;--c3:#23744a;--c4:#a83a6f;--c5:#5d6b1f}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--raised:#1d2126;--ink:#e4e8ec;--muted:#a3adb7;
--rule:#2d343b;--accent:#58b4dd;--second:#e0ad62;--faint:#75808a;--warm:#f28d4e;--good:#6cc595;--bad:#ef9090;
--track:#2a3037;--c2:#b39df0;--c3:#6cc595;--c4:#ee95bd;--c5:#c3d06a}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media(prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1280px;margin:0 auto;padding:0 24px}
header{padding-top:26px}
.eyebrow{margin:0;color:var(--muted);font-size:14px}
h1{margin:0 0 10px;font-size:26px;line-height:1.2;letter-spacing:-.01em;overflow-wrap:anywhere}
.answer{margin:0 0 4px;font-size:17px;line-height:1.45;max-width:74em;overflow-wrap:anywhere}
.answer.none{border-left:4px solid var(--bad);padding-left:14px}
.facts{margin:8px 0 0;color:var(--muted);font-size:14px;max-width:none}
.facts span+span::before{content:" · "}
dl{margin:0}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;margin:8px 0 0;padding:8px 0;border-block:1px solid var(--rule);font-size:14px}
a{color:var(--accent);text-underline-offset:2px;text-decoration-thickness:1px}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px;border-radius:2px}
section{margin-top:44px;scroll-margin-top:12px}
section:first-of-type{margin-top:14px}
h2{margin:0 0 6px;font-size:21px;letter-spacing:-.005em}
h3{margin:26px 0 8px;font-size:16.5px}
h4{margin:16px 0 4px;font-size:14px}
p{max-width:70em;overflow-wrap:anywhere}
.lead,.method{max-width:62em;color:var(--muted)}
.lead{margin:0 0 12px}
.method{font-size:13.5px}
.finding{padding:10px 14px;background:var(--raised);border-left:4px solid var(--accent);border-radius:0 6px 6px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:18px;align-items:start}
.cards>p{grid-column:1/-1;margin:0}
article{max-width:860px;padding:4px 18px 14px;border:1px solid var(--rule);border-radius:10px;min-width:0}
article h3{margin:10px 0 2px;font-size:18px;display:flex;flex-wrap:wrap;gap:4px 10px;align-items:baseline}
article h3 small{font-weight:400;font-size:13.5px;color:var(--muted)}
article p{margin:4px 0 8px;font-size:14.5px}
article table{font-size:13.5px}
article th,article td{padding:4px 10px 4px 0}
article .interval,article th small{font-size:12px}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:8px 28px}
figure{margin:8px 0 16px;min-width:0}
figcaption{font-size:14px;font-weight:600;overflow-wrap:anywhere}
.legend,ul.inline{display:flex;flex-wrap:wrap;gap:2px 16px;margin:4px 0 6px;padding:0;list-style:none;font-size:13px;color:var(--muted)}
ul.inline{gap:4px 22px;margin-bottom:12px;font-size:14px;color:inherit}
.legend li{display:flex;align-items:center;gap:5px}

span.swatch{display:inline-block;width:14px;height:12px;border-radius:2px}
span.swatch.limit{height:0;border-top:2px dashed var(--bad);border-radius:0}
.scroll{overflow-x:auto;margin:8px 0;position:relative}
table{border-collapse:collapse;width:100%;font-size:14px;line-height:1.35}
th,td{padding:6px 14px 6px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule)}
th:last-child,td:last-child{padding-right:2px}
th{color:var(--muted);font-weight:600;vertical-align:bottom}
th small{display:block;font-weight:400}
th button{all:unset;cursor:pointer}
th button:focus-visible{outline:2px solid var(--accent)}
th[aria-sort=ascending] button::after{content:" ↑";color:var(--accent)}
th[aria-sort=descending] button::after{content:" ↓";color:var(--accent)}
a.report{white-space:nowrap}
tr.float td{color:var(--muted)}
tr.pick td{background:var(--raised)}
.num{text-align:right}
td.num,td code{white-space:nowrap}
td code.long{white-space:normal}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
td code{font-size:12.5px}
.interval,.quiet{color:var(--muted)}
.interval{font-size:12.5px;white-space:nowrap}
.source{display:inline-block;padding:0 6px;border:1px solid var(--rule);border-radius:9px;color:var(--muted);
font-size:11px;line-height:16px;white-space:nowrap}
.source.modelled{border-style:dashed}
.source.estimated{border-style:dotted}
.state.complete{color:var(--good)}
.state.infeasible,.state.failed{color:var(--bad)}
.state.pruned{color:var(--muted)}
tr:target td,tr.shown td{background:var(--raised);box-shadow:inset 0 1px var(--accent),inset 0 -1px var(--accent)}
details{margin:8px 0}
summary{cursor:pointer;color:var(--accent);font-size:14px}
.command{display:flex;gap:12px;align-items:flex-start;background:var(--raised);border-radius:8px;padding:12px 14px}
.command pre{flex:1;margin:0;white-space:pre-wrap;min-width:0}
pre{overflow-x:auto}
button{font:inherit;font-size:13px;padding:3px 12px;border:1px solid var(--rule);border-radius:6px;
background:var(--paper);color:var(--ink);cursor:pointer}
.download{display:inline-block;margin-left:auto;padding:4px 12px;border-radius:6px;background:var(--accent);color:var(--paper);
font-size:13.5px;font-weight:600;text-decoration:none}
.contract{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:6px 0;font-size:14px}
.contract dt{color:var(--muted)}
.contract dd{margin:0;overflow-wrap:anywhere}
.targets{display:grid;gap:7px;margin:8px 0 10px;padding:0;list-style:none;font-size:13.5px}
.targets div{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 12px}
.targets strong{font-weight:600}
.bar{position:relative;display:inline-block;vertical-align:middle;width:90px;height:8px;margin-right:8px;border-radius:4px;background:var(--track);
print-color-adjust:exact;-webkit-print-color-adjust:exact}
.bar b{display:block;height:100%;border-radius:4px;background:var(--accent);print-color-adjust:exact}
.bar i{position:absolute;top:50%;height:0;border-top:1.5px solid var(--ink)}
.bar.second b{background:var(--second)}
.bar.over b{background:var(--bad)}
.bar.aside b{background:var(--faint)}
.targets .bar{display:block;width:100%;margin:2px 0 0}
.targets .bar::after{content:"";position:absolute;left:var(--at,100%);top:-3px;height:14px;border-left:2px solid var(--bad)}
.bars{display:grid;grid-template-columns:minmax(90px,max-content) 1fr;gap:3px 12px;font-size:13.5px;margin-top:6px}
.bars dt{overflow-wrap:anywhere}
.bars dd{margin:0;display:flex;align-items:center}
.bars .bar{flex:1;max-width:320px;height:11px;border-radius:3px}
.layers td{vertical-align:middle;padding-block:3px}.layers td+td{white-space:nowrap}
.layers .bar{width:70px}
.bits{display:inline-block;min-width:2.3em;padding:1px 5px;border-radius:4px;text-align:center;font-weight:600;font-size:12.5px;
border:1.5px solid var(--accent);print-color-adjust:exact}
.bits.b32,.bits.b16{border-color:var(--second)}
.bits.b0{border-color:transparent;color:var(--muted);font-weight:400}
.kept{display:inline-flex;width:64px;height:10px;margin-right:8px;border:1px solid var(--faint);border-radius:2px;vertical-align:middle}
.kept b{background:var(--faint);print-color-adjust:exact}
svg.plot{display:block;width:100%;max-width:480px;height:auto;font-size:12.5px;fill:var(--ink);overflow:visible}
.wide svg.plot{max-width:none}
svg.plot.swatch{width:18px;height:18px;flex:none}
.plot .quiet,.plot .name{fill:var(--muted)}
.plot .name{font-weight:600}
.plot .bold{font-weight:600}
.plot .bad{fill:var(--bad)}
.plot .halo{fill:var(--ink);paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.plot .loss{fill:var(--accent)}
.plot .chosen{fill:var(--paper);stroke:var(--warm);stroke-width:1.5}
.plot .rule{stroke:var(--rule)}
.plot .axis{stroke:var(--faint)}
.plot .limit,.plot .budget{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:5 4}
.plot .limit.strong{stroke-width:2.5;stroke-dasharray:none}
.plot .beyond{fill:var(--bad);fill-opacity:.22}
.plot .curve{fill:none;stroke:var(--accent);stroke-width:2}
.plot .trial{fill:var(--muted)}
.plot .pick{fill:none;stroke:var(--warm);stroke-width:2.5}
.plot .mark{fill:var(--c,var(--faint))}
.plot .cross{fill:none;stroke:var(--c,var(--faint));stroke-width:1.6}
.plot .dots{fill:none;stroke:var(--c,var(--faint));stroke-width:9!important;stroke-linecap:round}
.plot .line,.plot .thread{fill:none;stroke:var(--c,var(--faint));stroke-width:1.6}
.plot .whisker{stroke:var(--c,var(--faint));stroke-width:1.3;stroke-opacity:.5}
.plot .ring{fill:none;stroke:var(--c);stroke-width:2.5}
.plot .thread{stroke-width:1.3;stroke-linejoin:round}
.plot .thread.front,.plot .thread.base{stroke-width:2.2}
.plot .thread.picked{stroke-width:3.5}
.plot .dashed{stroke-dasharray:4 3}
.plot .front,.plot .c0{--c:var(--accent)}
.plot .picked,.plot .c1{--c:var(--warm)}
.plot .base{--c:var(--second)}
.plot .other{--c:var(--faint)}
.plot .c2{--c:var(--c2)}.plot .c3{--c:var(--c3)}.plot .c4{--c:var(--c4)}.plot .c5{--c:var(--c5)}
.part0{fill:var(--accent);background:var(--accent)}
.part1{fill:var(--faint);background:var(--faint)}
.part2{fill:var(--second);background:var(--second)}
.pt{cursor:pointer;outline-offset:3px}
.pt:hover .mark,.pt:focus-visible .mark{stroke:var(--ink);stroke-width:2}
.pt:hover .thread,.pt:focus-visible .thread{stroke:var(--ink);stroke-width:4}
#tip{position:absolute;z-index:9;max-width:min(380px,calc(100vw - 16px));padding:8px 12px;border:1px solid var(--rule);border-radius:8px;
background:var(--raised);color:var(--ink);font-size:13px;line-height:1.45;box-shadow:0 4px 16px #0003;pointer-events:none;overflow-wrap:anywhere}
footer{margin-top:56px;padding-block:16px 36px;border-top:1px solid var(--rule);color:var(--muted);font-size:13px}
@media(min-width:1000px){svg.plot{max-width:600px;font-size:10px}.wide svg.plot{max-width:none;font-size:11.5px}.plot .mark,.plot .ring{stroke-width:1.5}}
@media(max-width:600px){article table{font-size:13px}article .interval{font-size:11px}article .change,article td:first-child .interval{white-space:normal}
#health thead{display:none}#health tr{display:block;padding:8px 0}#health td{display:block;padding:1px 0;border:0}
article th,article td{padding-right:6px}.layers .bar,.kept{width:36px}.layers th,.layers td{padding-right:8px}
main,header,footer{padding-inline:16px}article{max-width:860px;padding-inline:12px}h1{font-size:23px}.answer{font-size:16px}
th,td{padding-right:10px}.contract{grid-template-columns:1fr}.contract dd{margin:0 0 4px}}
@media print{nav,button,.download,#tip{display:none}body{font-size:11pt}.scroll{overflow:visible}
section{break-inside:auto}article,figure,tr{break-inside:avoid}main,header,footer{max-width:none;padding:0}
:root{color-scheme:light;--paper:#fff;--raised:#f6f7f9;--ink:#1b2026;--muted:#56606a;--rule:#dfe3e8;--accent:#0a6c96;--second:#b26a00;
--faint:#98a2ac;--warm:#c24f0f;--good:#1f6e45;--bad:#b03a3a;--track:#e6eaee}}
"""
