"""Writes the report of an evaluation: one self-contained HTML file for a person to look at.

No script, and nothing from the network; light or dark mode, as the reader has set; wide figures scroll on a phone.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from edge.outputs import save_text
from edge.skeleton import Float
from trainer import figures
from trainer.confusion import GRID, Confusion, confusions, roc_curves
from trainer.datasets import ClipSet
from trainer.evaluate import Evaluation, FewShot

MOST_ON_MAP = 1500
"""The map shows at most this many clips: more would be a blur, and take minutes to arrange."""

STYLE = """
:root{color-scheme:light dark;--bg:#fbfbfa;--fg:#1c2127;--soft:#5c6670;--rule:#dde1e5;--card:#fff;--warn:#fff3d6;
--a:#1f6feb;--b:#d1580b;--c:#8250df;--left:#1f6feb;--right:#d1580b;--l0:.5;--l1:.62}
@media (prefers-color-scheme:dark){:root{--bg:#14171a;--fg:#e6e9ec;--soft:#9aa5b0;--rule:#30373e;--card:#1b1f24;
--warn:#3a2f12;--a:#6cb0ff;--b:#ffa657;--c:#c9a6ff;--left:#6cb0ff;--right:#ffa657;--l0:.8;--l1:.68}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.2rem 1rem 4rem;max-width:62rem;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:.4em 0}h2{font-size:1.2rem;margin:2.2em 0 .3em}
p{max-width:44rem;margin:.5em 0}.soft,figcaption{color:var(--soft);font-size:.9rem}
.warn{background:var(--warn);padding:.7rem .9rem;border-radius:.4rem}
.tiles{display:flex;flex-wrap:wrap;gap:.8rem;margin:1rem 0}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.7rem 1rem;flex:1 1 13rem}
.tile b{display:block;white-space:nowrap;font-size:1.8rem;line-height:1.2;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;overflow-wrap:normal}
th,td{padding:.3rem .8rem .3rem 0;text-align:left;border-bottom:1px solid var(--rule);vertical-align:top}
td small{color:var(--soft);white-space:nowrap}figure{margin:1rem 0}
svg{display:block;max-width:100%;height:auto;overflow:visible}
svg text{font:13px system-ui,sans-serif;fill:var(--fg)}svg .small{font-size:11.5px;fill:var(--soft)}
.two{display:flex;flex-wrap:wrap;gap:1rem}.two figure{flex:1 1 18rem;margin:0;max-width:26rem}
.many{display:grid;grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));gap:1rem .9rem}
.many figure{margin:0}.many figcaption{line-height:1.25;font-size:.8rem;margin-top:.25rem}
.wide svg.map{min-width:44rem;width:100%}.wide svg.bars{min-width:32rem;width:100%;max-width:44rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:.2rem 1.6rem;
background:var(--card);border:1px solid var(--rule);border-radius:.5rem;padding:.8rem 1rem;margin:.9rem 0}
.pair h3{grid-column:1/-1;margin:0;font-size:1rem}.pair h3 .soft{font-weight:400;white-space:nowrap}
.pair figure{margin:.3rem 0}
.key{display:inline-block;width:1.6em;height:0;border-top:3px solid;vertical-align:middle;margin:0 .35em 0 .9em}
.grid{stroke:var(--rule);stroke-width:1}.chance{stroke:var(--soft);stroke-width:1;stroke-dasharray:3 3}
.frame{fill:none;stroke:var(--rule);stroke-width:1}
.curve{fill:none;stroke-width:2;stroke-linejoin:round}.c0{stroke:var(--a)}.c1{stroke:var(--b)}.c2{stroke:var(--c)}
.bar{fill:var(--a);opacity:.75}.whisker{stroke:var(--fg);stroke-width:1.5}.mark{stroke-width:3}
.dot{fill:currentColor;opacity:.8}.ring{fill:none;stroke:currentColor;stroke-width:1.3;opacity:.75}
svg .name{fill:currentColor;font-weight:600;paint-order:stroke;stroke:var(--bg);stroke-width:4px;stroke-linejoin:round}
.leader{stroke:currentColor;stroke-width:1;opacity:.8}
.bone{fill:none;stroke-width:2.4;stroke-linecap:round;stroke-linejoin:round}.bone.m{stroke:var(--fg)}
.bone.l{stroke:var(--left)}.bone.r{stroke:var(--right)}.bone.head{fill:var(--card)}.ground{stroke:var(--rule)}
"""


def arrange(embedding: Float) -> NDArray[np.float64]:
    """Find places (N, 2) in which near clips stay near: by t-SNE, or for a few clips by PCA."""
    if len(embedding) < 12:
        flat = PCA(min(2, *embedding.shape)).fit_transform(embedding)
        return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    perplexity = min(30.0, (len(embedding) - 1) / 3)
    found = TSNE(2, perplexity=perplexity, metric="cosine", init="pca", random_state=0).fit_transform(embedding)
    return np.asarray(found, np.float64)


def rate(value: float) -> str:
    """A share as a number out of 100."""
    return f"{100 * value:.1f} of 100"


def breakable(name: str) -> str:
    """A name in which lines may be broken after underscores."""
    return escape(name).replace("_", "_<wbr>")


def interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.4f} <small>{low:.4f} – {high:.4f}</small>"


def keys(names: Sequence[str]) -> str:
    """The legend of lines and marks in classes c0, c1, …"""
    colours = ("a", "b", "c")
    items = [f'<span class="key" style="color:var(--{colours[n]})"></span>{escape(m)}' for n, m in enumerate(names)]
    return f'<p class="soft">{"".join(items)}</p>'


def write_report(folder: Path, found: Evaluation, clips: ClipSet, *, model: str, data: str, note: str) -> Path:
    """Write `folder/index.html` and return its path. `note` is what the manifest says about these clips, or empty."""
    category = np.array(clips.names)[clips.label]
    main = found.results[found.main]
    names = list(main)
    curves = {name: roc_curves(found.episodes[name]) for name in names}
    first = found.methods[0]
    worst = confusions(first.embedding, category, found.episodes[first.name], first.distance)
    parts = [
        headline(found, curves[names[0]], clips, model=model, data=data, note=note),
        shots_table(found),
        roc_part(curves, main),
        bars_part(main, found),
        map_part(first.embedding, category, clips, found),
        confusion_part(worst, clips),
    ]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(model)} on {escape(data)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )
    out = folder / "index.html"
    save_text(out, page)
    return out


def headline(
    found: Evaluation, curves: dict[str, NDArray[np.float64]], clips: ClipSet, *, model: str, data: str, note: str
) -> str:
    """The results in words."""
    main = found.results[found.main]
    (_, own), *others = main.items()
    flagged = float(np.mean([GRID[np.argmax(c >= 0.95)] for c in curves.values()]))
    what = (
        "pairs told apart: a clip of another action is at a greater distance than one of the action itself "
        f"(mean AUROC {own.mean:.4f}, 95 % of the draws {own.interval[0]:.4f} to {own.interval[1]:.4f})"
    )
    tiles = [(rate(own.mean), what)]
    for name, r in others:
        nothing = " – no learning at all" if name.startswith("floor") else ""
        tiles.append((rate(r.mean), f"pairs told apart by {escape(name)}{nothing}"))
    tiles.append((rate(flagged), "normal clips flagged when 95 of 100 others are caught (mean over categories)"))
    tiles += [
        (rate(p.mean), f"pairs told apart, over the {p.categories} {k} categories alone") for k, p in own.parts.items()
    ]
    cards = "".join(f'<div class="tile"><b>{big}</b>{small}</div>' for big, small in tiles)
    people, about = len(set(clips.subjects.tolist()) - {""}), found.protocol.about
    shots = f"{found.main} clip" + "s" * (found.main > 1)
    return (
        f"<h1>{escape(model)} on {escape(data)}</h1>"
        f"<p>Given {shots} of an action, how well are its other clips told from those of all other actions? Each of "
        f"{len(own.categories)} categories was in turn the normal one, with {own.draws} draws of its {shots}.</p>"
        + (f'<p class="warn"><b>Read with care:</b> {escape(note)}</p>' if note else "")
        + f'<div class="tiles">{cards}</div>'
        f'<p class="soft">{len(clips.clips)} clips, {len(set(clips.label.tolist()))} categories, '
        f"{f'{people} people' if people else 'people not named'}. {escape(about[:1].upper() + about[1:])}. "
        f"{int(found.protocol.test.sum())} clips can be judged, {int(found.protocol.pool.sum())} can be support. "
        f"Seed {own.seed}. Whole clips are judged; the windows of a stream are harder. 50 of 100 is chance. The "
        "intervals say how much depends on which clips are the support, not how other people would do.</p>"
    )


def shots_table(found: Evaluation) -> str:
    """A table of each number of shots with the means of each method, and what was not possible."""
    parts = list(next(iter(next(iter(found.results.values())).values())).parts)
    rows = []
    for k, results in found.results.items():
        for n, (name, r) in enumerate(results.items()):
            cells = [escape(name), interval(r.mean, *r.interval)]
            cells += [interval(p.mean, p.low, p.high) if p else "–" for p in (r.parts.get(x) for x in parts)]
            cells.append(f"{len(r.categories)} of {len(r.categories) + len(r.left_out)}")
            first = "" if n else f'<td rowspan="{len(results)}">{k}</td>'
            rows.append(first + "".join(f"<td>{c}</td>" for c in cells))
    head = ["clips shown", "by", "mean AUROC", *parts, "categories"]
    table = "".join(f"<th>{h}</th>" for h in head)
    table += "".join(f"<tr>{row}</tr>" for row in rows)
    notes = [f"<li>{k} clips: {escape(why)}</li>" for k, why in found.impossible.items()]
    for k, results in found.results.items():
        out = next(iter(results.values())).left_out
        notes += [f"<li>{k} clips, {escape(name)}: {escape(why)}</li>" for name, why in out.items()]
    seen = (
        " Seen and unseen: what recipe paper may and may not train on; the bundle was trained on its own data."
        if parts
        else ""
    )
    missing = f'<p>Not possible:</p><ul class="soft">{"".join(notes)}</ul>' if notes else ""
    return (
        f'<h2>How many clips to show</h2><div class="wide"><table>{table}</table></div>{missing}'
        '<p class="soft">In small type: 95 % of the draws lie between these two. Means over different numbers of '
        f"categories cannot be compared.{seen}</p>"
    )


def roc_part(curves: dict[str, dict[str, NDArray[np.float64]]], main: dict[str, FewShot]) -> str:
    """The mean ROC of each method, its upper left corner enlarged, and one small ROC per category."""
    mean = {name: np.mean(list(c.values()), 0) for name, c in curves.items()}
    own = next(iter(main.values()))
    order = sorted(own.categories, key=own.categories.__getitem__)
    spans = (s for s in (0.1, 0.2, 0.3, 0.5) if all(np.interp(s, GRID, c) > 1 - s / 2 for c in mean.values()))
    corner = next(spans, None)
    enlarged = ""
    if corner:
        picture = figures.roc(mean, GRID, corner=corner)
        enlarged = f"<figure>{picture}<figcaption>Its upper left corner, enlarged</figcaption></figure>"
    minis = [
        f"<figure>{figures.small_roc([c[name] for c in curves.values()], GRID, f'ROC of {name}')}"
        f"<figcaption>{breakable(name)}<br>{own.categories[name]:.4f}</figcaption></figure>"
        for name in order
    ]
    return (
        "<h2>ROC curves</h2><p>A limit on the distance catches some of the other clips and flags some normal ones. "
        "Each point of a curve is one limit; the nearer to the upper left, the better.</p>"
        f'{keys(list(curves))}<div class="two"><figure>{figures.roc(mean, GRID)}'
        f"<figcaption>Mean over categories</figcaption></figure>{enlarged}</div>"
        f'<p>Each category with its AUROC, the worst first:</p><div class="many">{"".join(minis)}</div>'
    )


def bars_part(main: dict[str, FewShot], found: Evaluation) -> str:
    """Each category's AUROC beside the other methods', the worst first."""
    own = next(iter(main.values()))
    rows = [
        (name, [r.categories[name] for r in main.values()], own.low[name], own.high[name], name in found.unseen)
        for name in sorted(own.categories, key=own.categories.__getitem__)
    ]
    beside = ", beside the other methods" if len(main) > 1 else ""
    return (
        f"<h2>Each category{beside}</h2>{keys(list(main))}"
        f'<div class="wide">{figures.bars(rows, list(main))}</div><p class="soft">The thin line spans 95 % of the '
        f"draws{'; ◆ marks an unseen category' if found.unseen else ''}.</p>"
    )


def map_part(embedding: Float, category: NDArray[np.str_], clips: ClipSet, found: Evaluation) -> str:
    """The map of the embeddings in two dimensions."""
    chosen = np.unique(np.linspace(0, len(embedding) - 1, min(len(embedding), MOST_ON_MAP)).astype(int))
    protocol = found.protocol
    unseen = ~protocol.seen if protocol.seen is not None else np.zeros(len(category), bool)
    only_pool = protocol.pool & ~protocol.test
    titles = [f"{category[i]} / {clips.paths[i].stem}" for i in chosen]
    picture = figures.embedding_map(
        arrange(embedding[chosen]), category[chosen].tolist(), only_pool[chosen], unseen[chosen], titles
    )
    said = [
        "Each mark is a clip; marks near each other are clips that the model finds alike. Large distances mean little."
    ]
    if only_pool.any():
        said.append("Filled: a clip that was judged. Hollow: one that support is drawn from.")
    if unseen.any():
        said.append("Diamonds: unseen categories.")
    if len(chosen) < len(embedding):
        said.append(f"{len(chosen)} of {len(embedding)} clips are shown.")
    return f'<h2>Where clips lie</h2><p>{" ".join(said)}</p><div class="wide"><figure>{picture}</figure></div>'


def confusion_part(worst: Sequence[Confusion], clips: ClipSet) -> str:
    """The worst pairs, each as two rows of stick figures."""
    if not worst:
        return (
            "<h2>Worst confusions</h2><p>None: no clip of another category was nearer than one of the category's own."
            "</p>"
        )
    cards = []
    for c in worst:
        sides = []
        for name, i, role in ((c.normal, c.like, "the support clip nearest to it"), (c.other, c.clip, "the clip")):
            picture = figures.strip_picture(clips.clips[i], f"{name}, stick figures")
            who = f"{clips.paths[i].stem}, {role}"
            sides.append(f"<figure>{picture}<figcaption><b>{escape(name)}</b> – {escape(who)}</figcaption></figure>")
        cards.append(
            f'<div class="pair"><h3>{escape(c.other)} looks like {escape(c.normal)} '
            f'<span class="soft">pairs told apart: {rate(c.auroc)}</span></h3>{"".join(sides)}</div>'
        )
    return (
        "<h2>Worst confusions</h2><p>With one action as normal, clips of another come near. Shown are the clip "
        "that came nearest and what it was taken for, at eight equal time steps. "
        '<span style="color:var(--left)">Left</span> and <span style="color:var(--right)">right</span> limbs.</p>'
        + "".join(cards)
    )
