"""The look of every page: quiet, readable on a phone, in light and dark, nothing fetched."""

STYLESHEET = """
:root {
  color-scheme: light dark;
  --ground: #fbfaf8; --card: #ffffff; --ink: #21201d; --soft: #6d6a63; --line: #e5e1d9;
  --good: #2c7a4b; --bad: #b3362b; --warn: #94650c;
  --c0: #3b6ea8; --c1: #c46a2b; --c2: #3f8a63; --c3: #9a4f8e; --c4: #8a7a2e; --c5: #5f6b7a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #171614; --card: #201f1c; --ink: #eceae4; --soft: #a19d94; --line: #37342f;
    --good: #6cc28f; --bad: #ef8a7e; --warn: #e0b25a;
    --c0: #7fb0e6; --c1: #eb9c64; --c2: #7cc79f; --c3: #d493c8; --c4: #cbbb66; --c5: #a3afbe;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; padding: 2rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 60rem; margin: 0 auto; }
h1 { font-size: 1.7rem; line-height: 1.2; letter-spacing: -.01em; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .75rem; padding-top: .9rem; border-top: 1px solid var(--line); }
p { max-width: 42rem; margin: .6rem 0; overflow-wrap: anywhere; }
a { color: var(--c0); }
figure { margin: 1.1rem 0; }
figcaption, caption { color: var(--soft); font-size: .85rem; text-align: left; }
figcaption { margin-top: .4rem; } caption { caption-side: top; padding: 0 0 .4rem; }
img { max-width: 100%; height: auto; display: block; border-radius: 6px; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: .8rem 0; font-size: .95rem; }
details { margin: .8rem 0; } summary { cursor: pointer; color: var(--soft); }
.verdict { font-size: 1.1rem; font-weight: 600; padding: .7rem 1rem; background: var(--card);
  border: 1px solid var(--line); border-left: 4px solid var(--soft); border-radius: 6px; max-width: none; }
.verdict.good { border-left-color: var(--good); } .verdict.bad { border-left-color: var(--bad); }
.verdict.warn { border-left-color: var(--warn); }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; }
.figures dt { color: var(--soft); font-size: .8rem; line-height: 1.3; overflow-wrap: anywhere; }
.figures dd { margin: .15rem 0 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; line-height: 1.25; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; min-width: min(100%, 24rem); }
th, td { padding: .38rem .9rem .38rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
td { max-width: 30rem; overflow-wrap: break-word; } td:not(.number) { min-width: 5rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars { display: grid; grid-template-columns: minmax(5rem, max-content) 1fr max-content; gap: .35rem .8rem;
  align-items: center; font-size: .9rem; max-width: 44rem; }
.bars span { overflow-wrap: anywhere; }
.bars svg { width: 100%; height: .85rem; display: block; } .bars rect { fill: var(--c0); }
.bars b { font-weight: 500; font-variant-numeric: tabular-nums; text-align: right; }
.plot { position: relative; height: 15rem; max-width: 44rem; margin: .4rem .8rem 1.9rem 3.6rem; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.plot path, .plot line { fill: none; vector-effect: non-scaling-stroke; }
.plot line { stroke: var(--line); stroke-width: 1; } .plot path { stroke-width: 1.8; stroke-linejoin: round; }
.plot span { position: absolute; font-size: .75rem; color: var(--soft); white-space: nowrap; line-height: 1; }
.plot .x { top: calc(100% + .5rem); transform: translateX(-50%); }
.plot .y { right: calc(100% + .5rem); transform: translateY(50%); }
.key { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; margin: 0 0 .5rem;
  padding: 0; list-style: none; }
.key li::before { content: ""; display: inline-block; width: 1rem; height: .2rem; margin-right: .4rem;
  vertical-align: middle; border-radius: 1px; background: var(--swatch); }
.reasons { margin: .6rem 0; padding-left: 1.2rem; max-width: 42rem; } .reasons li { margin: .25rem 0; }
.sides { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 1rem; }
.side { display: grid; grid-template-columns: 1fr 1fr; gap: .25rem .3rem; align-content: start; }
.side figure { margin: 0; color: var(--soft); font-size: .85rem; } .side img { width: 100%; }
.side p { grid-column: 1 / -1; margin: 0; color: var(--soft); font-size: .85rem; }
.deltas { margin: 1rem 0; max-width: 48rem; }
.delta { display: grid; gap: .1rem .8rem; align-items: center; padding: .35rem 0; font-size: .9rem;
  grid-template-columns: minmax(9rem, 1.2fr) minmax(8rem, 1fr) minmax(7rem, 1.4fr) minmax(13rem, 1.3fr);
  border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; --tone: var(--soft); }
.delta.better { --tone: var(--good); } .delta.worse { --tone: var(--bad); }
.delta b { font-weight: 500; overflow-wrap: anywhere; } .delta span { color: var(--soft); }
.delta em { font-style: normal; color: var(--tone); }
.delta svg { width: 100%; height: .8rem; display: block; } .delta rect { fill: var(--tone); }
.delta .zero { stroke: var(--soft); stroke-width: 1; vector-effect: non-scaling-stroke; }
@media (max-width: 40rem) {
  .delta { grid-template-columns: 1fr 1fr; } .delta span, .delta em { text-align: right; }
}
pre { font-size: .75rem; line-height: 1.4; }
"""
