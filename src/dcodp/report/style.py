"""The look of the HTML page: inline, no outside fonts, light and dark, tables that scroll in their own box."""

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2126; --soft: #59636e; --line: #d4dae0; --tint: #f3f5f7;
  --link: #0a58a8; --good: #0b6b4f; --bad: #a33b00; }
@media (prefers-color-scheme: dark) { :root { --paper: #15191d; --ink: #e6eaee; --soft: #a3adb8; --line: #3a434c;
  --tint: #1f252b; --link: #7ab8f5; --good: #5fd0a8; --bad: #ffa066; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 78rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; margin: .5rem 0; } h2 { font-size: 1.35rem; margin: 2.5rem 0 .5rem; }
h3 { font-size: 1.1rem; margin: 1.5rem 0 .5rem; }
a { color: var(--link); }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; padding: .5rem 0; border-block: 1px solid var(--line); }
nav a { padding: .35rem 0; }
.scroll { overflow-x: auto; max-width: 100%; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
  vertical-align: top; }
table { overflow-wrap: break-word; }
thead th { background: var(--tint); vertical-align: bottom; white-space: normal; min-width: 4.2rem; }
th.text, td.text { text-align: left; }
tbody tr:last-child > * { border-bottom: 0; } tbody th { font-weight: 500; }
tbody th { position: sticky; left: 0; background: var(--paper); white-space: normal; min-width: 6.5rem; }
tr.dense > * { background: var(--tint); }
td.missing, td.none, td.mixed { color: var(--soft); font-style: italic; }
td details { text-align: left; white-space: normal; } td details[open] { min-width: 18rem; }
summary { cursor: pointer; padding: .1rem 0; } td summary { white-space: nowrap; min-width: 2.2rem; }
ul.notes { margin: .5rem 0; padding-left: 1.2rem; color: var(--soft); font-size: .87rem; }
.run:target { outline: 2px solid var(--link); outline-offset: .3rem; }
figure { margin: 1rem 0; } figure .scroll { width: fit-content; background: #fff; }
figure img { display: block; height: auto; width: 60rem; min-width: 52rem; max-width: 100%; }
figcaption { font-size: .87rem; color: var(--soft); }
.holds { color: var(--good); } .fails { color: var(--bad); } .unknown { color: var(--soft); }
pre { width: max-content; min-width: 100%; margin: 0; padding: .6rem; background: var(--tint); font-size: .8rem; }
code { font-size: .9em; } small { font-size: .78rem; } .run { border-bottom: 1px solid var(--line); padding: .3rem 0; }
.wide td, .wide th { white-space: normal; min-width: 8.5rem; } .wide th:first-child { min-width: 14rem; }
.wide tbody th { position: static; } .groups td, .groups th { white-space: normal; }
.groups td.text { min-width: 20rem; }
@media (max-width: 40rem) { table { font-size: .82rem; } th, td { padding: .4rem; } thead th { min-width: 3.6rem; }
  td details[open] { min-width: 12.5rem; } .wide th:first-child { min-width: 9rem; }
  .groups td.text { min-width: 12rem; } }
"""
