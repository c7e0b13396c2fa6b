"""Style sheet of the report: no fonts or images from elsewhere, readable on a screen and on paper."""

from __future__ import annotations

__all__ = ["CSS"]

CSS = """
:root { color-scheme: light; --ink: #1d2530; --soft: #5d6875; --rule: #dde2e8; --panel: #f6f8fa;
  --ours: #3b6fb6; --good: #23733c; --bad: #b3391f; --unclear: #7a6212; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink); line-height: 1.5; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 36px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 44px 0 6px; padding-top: 14px; border-top: 1px solid var(--rule); }
h3 { font-size: 14px; margin: 0 0 6px; font-weight: 600; }
p { margin: 6px 0 12px; max-width: 78ch; }
.soft, figcaption, .caption { color: var(--soft); }
.caption { font-size: 13.5px; }
code, .id { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: 0.88em;
  overflow-wrap: anywhere; }
.verdict { list-style: none; margin: 18px 0 8px; padding: 0; display: grid; gap: 8px; }
.verdict li { padding: 10px 14px; background: var(--panel); border-left: 4px solid var(--unclear);
  border-radius: 3px; }
.verdict li.good { border-color: var(--good); } .verdict li.bad { border-color: var(--bad); }
.notes { margin: 8px 0; padding-left: 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 12px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; font-size: 13.5px; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th.group { text-align: center; border-bottom: 1px solid var(--ink); }
td.main { font-weight: 600; }
td.ours { color: var(--ours); }
td .interval { color: var(--soft); font-size: 13px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 24px; margin: 14px
0; } figure { margin: 0; } figcaption { font-size: 13.5px; margin-top: 4px; }
svg { width: 100%; height: auto; display: block; }
.map svg { background: var(--panel); border-radius: 4px; }
.dot { stroke: #fff; stroke-width: 0.7; }
.dot:hover { stroke: var(--ink); stroke-width: 1.5; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.grid { stroke: var(--rule); stroke-width: 1; }
.tick, .axis { font-size: 11.5px; fill: var(--soft); font-variant-numeric: tabular-nums; }
.legend { list-style: none; margin: 6px 0 0; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 16px;
  font-size: 13px; }
.legend .key { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 6px; }
.query { display: grid; grid-template-columns: 176px 1fr; gap: 6px 20px; padding: 14px 0;
  border-bottom: 1px solid var(--rule); break-inside: avoid; }
.row { display: grid; grid-template-columns: 92px repeat(5, minmax(0, 1fr)); gap: 8px; align-items: start;
  margin-bottom: 8px; }
.row > .name { font-size: 13px; color: var(--soft); padding-top: 4px; }
.tile { font-size: 12px; line-height: 1.35; min-width: 0; border-top: 3px solid var(--rule); padding-top:
4px; } .tile.same { border-color: var(--good); } .tile.other { border-color: var(--bad); }
.tile.same .mark { color: var(--good); } .tile.other .mark { color: var(--bad); }
.tile img { width: 100%; display: block; border-radius: 2px; margin-bottom: 3px; }
.tile .head { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
.tile .mark { font-weight: 700; } .tile .class { overflow-wrap: anywhere; }
.tile .id { color: var(--soft); font-size: 10.5px; white-space: nowrap; overflow: hidden; text-overflow:
ellipsis; } dl { display: grid; grid-template-columns: 190px 1fr; gap: 4px 18px; margin: 10px 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 700px) { .query { grid-template-columns: 1fr; } .row { grid-template-columns: repeat(3,
1fr); }
  .row > .name { grid-column: 1 / -1; } dl { grid-template-columns: 1fr; } dt { margin-top: 6px; } }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } }
"""
