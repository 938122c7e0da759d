"""The style sheet of report.html."""

CSS = """
:root{--ink:#1d2129;--soft:#5c6470;--line:#e3e6ea;--paper:#fff;--wash:#f5f6f8;--blue:#0072B2;--orange:#D55E00;
--good:#00795a;--fair:#8a5a00;--poor:#b03a00}
*{box-sizing:border-box}
body{margin:0;background:var(--wash);color:var(--ink);font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 24px 60px}
header p,.note{color:var(--soft)}
h1{font-size:26px;margin:0 0 4px;line-height:1.25;overflow-wrap:anywhere}
h2{font-size:19px;margin:0 0 12px}
h3{font-size:16px;margin:20px 0 8px}
h4{font-size:13px;margin:0 0 6px;color:var(--soft);font-weight:600}
section{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:20px 22px;margin-top:18px}
.hero{display:grid;grid-template-columns:repeat(auto-fit,minmax(210px,1fr));gap:18px 26px}
.hero div{border-left:4px solid var(--line);padding-left:12px}
.hero .good{border-color:var(--good)}.hero .fair{border-color:var(--fair)}.hero .poor{border-color:var(--poor)}
.hero strong{display:block;font-size:22px;line-height:1.25}
.hero .good strong{color:var(--good)}.hero .fair strong{color:var(--fair)}.hero .poor strong{color:var(--poor)}
.hero small{color:var(--soft);font-size:13px}
.wide{overflow-x:auto}
.unbroken{white-space:nowrap}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;white-space:nowrap;color:var(--soft);font-weight:600;font-size:12.5px;
border-bottom:1px solid var(--line);padding:6px 10px 6px 0}
td{border-bottom:1px solid var(--line);padding:5px 10px 5px 0;vertical-align:middle;overflow-wrap:anywhere}
tr:last-child td{border-bottom:0}
.ci{color:var(--soft);white-space:nowrap}
.said{white-space:normal;font-size:12.5px}
.bar{display:block;position:relative;width:190px;height:12px;background:var(--wash);border-radius:3px}
.bar b{position:absolute;inset:0 auto 0 0;background:var(--blue);opacity:.8;border-radius:3px}
.bar i{position:absolute;top:5px;height:2px;background:var(--ink)}
figure{margin:0}
figcaption{color:var(--soft);font-size:13px;margin-top:4px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:22px 26px}
.plots .full{grid-column:1/-1}
figure img{max-width:100%;height:auto;display:block}
ul{margin:8px 0 0;padding-left:20px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:12px}
article{border:1px solid var(--line);border-left:4px solid var(--orange);border-radius:8px;
padding:12px 14px;min-width:0}
article.right{border-left-color:var(--good)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 10px;margin:0;font-size:13.5px}
dt{color:var(--soft)}
dd{margin:0;min-width:0;overflow-wrap:anywhere}
code{font:13px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;white-space:pre-wrap;overflow-wrap:anywhere}
pre{font:12.5px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;margin:0}
.around{font-size:13px;color:var(--soft);background:var(--wash);border-radius:6px;padding:8px 10px;margin:8px 0 0;
white-space:pre-wrap;overflow-wrap:anywhere;max-height:11em;overflow:auto}
mark{background:#ffe8a3;color:var(--ink);padding:0 2px;border-radius:2px}
details>summary{cursor:pointer;font-weight:600;padding:4px 0}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
