"""Renders a bench report: as a table for a terminal, and as Markdown for a page."""

from __future__ import annotations

from typing import Any

from rich.table import Table

Row = tuple[str, str]


def rows(report: dict[str, Any]) -> list[Row]:
    """(what was measured, the figure) for each line of the report."""
    out: list[Row] = []
    if s := report.get("start"):
        out.append(("start to first score, cache empty", f"{s['cold']['first_score']:.2f} s"))
        out.append(("start to first score, cache filled", f"{s['warm']['first_score']:.2f} s"))
    if s := report.get("sustained"):
        lost = ", ".join(f"{k} {v:g}" for k, v in s["lost"].items()) or "nothing"
        out.append((f"paced for {s['seconds']:g} s: person-frames a second", f"{s['person_frames_s']:,.0f}"))
        out.append(("paced: windows a second", f"{s['windows_s']:,.0f}"))
        out.append(("paced: lost", lost))
        for kind in ("score", "alert"):
            if s[kind].get("count"):
                f = s[kind]
                out.append(
                    (
                        f"paced: {kind} beyond the window's end, p50 / p99 / max",
                        f"{f['p50_ms']:.0f} / {f['p99_ms']:.0f} / {f['max_ms']:.0f} ms",
                    )
                )
        p50, p99 = (s["arrival_to_score_ms"][q] for q in ("p50", "p99"))
        if p50 is not None:
            out.append(("paced: from a frame's arrival to its score, p50 / p99", f"{p50:.0f} / {p99:.0f} ms"))
        out.append(("paced: CPU of the engine / of the cameras", f"{s['engine_cpu']:.0%} / {s['cameras']['cpu']:.0%}"))
        if s["memory_mb"]:
            out.append(("paced: memory at first / at last", f"{s['memory_mb'][0]:.0f} / {s['memory_mb'][-1]:.0f} MB"))
    if s := report.get("ceiling"):
        out.append((f"engine alone, windows a second, batch {s['batch']}", f"{s['bare_windows_s']:,.0f}"))
        out.append(("end to end, highest, windows a second", f"{s['windows_s']:,.0f}"))
        out.append(("end to end over engine alone", f"{s['share_of_bare']:.0%}"))
    if s := report.get("stages"):
        out.append(
            ("receive + decode + windows, person-frames a second, one core", f"{s['front_person_frames_s']:,.0f}")
        )
        for name, cost in s["cpu_us_a_person_frame"].items():
            out.append((f"CPU of a person-frame: {name}", f"{cost:.2f} µs"))
        out.append(("engine, CPU of a window", f"{s['engine_us_a_window']:.0f} µs"))
        out.append(("share of inference that explains alerts", f"{s['explaining_share']:.1%}"))
        out.append(("CPU of a person-frame: ZeroMQ's own thread", f"{s['io_thread_us_a_person_frame']:.2f} µs"))
    if s := report.get("tracks"):
        for r in s["rows"]:
            out.append(
                (f"a person-frame without inference, {r['tracks']:g} tracks", f"{r['us_a_person_frame']:.1f} µs")
            )
        out.append(("growth from the fewest to the most tracks", f"{s['growth']:+.0%}"))
        last = s["rows"][-1]
        out.append(("memory of a track: arrays", f"{last['array_bytes_a_track']:,.0f} bytes"))
        out.append(("memory of a track: resident", f"{s['resident_bytes_a_track']:,.0f} bytes"))
        out.append(("memory of a track: window × joints × 16 + 1 kB", f"{last['bound_bytes_a_track']:,.0f} bytes"))
    if s := report.get("soak"):
        lost = ", ".join(f"{k} {v:g}" for k, v in s["lost"].items()) or "nothing"
        minutes = s["capture_s"] / 60
        out.append((f"{minutes:g} minutes of capture time, sent in", f"{s['wall_s']:,.0f} s"))
        out.append((f"{minutes:g} minutes: lost", lost))
        out.append(
            (
                f"{minutes:g} minutes: memory after a tenth / most / at last",
                f"{s['warm_mb']:.1f} / {s['most_mb']:.1f} / {s['last_mb']:.1f} MB",
            )
        )
    for name, p in (report.get("peers") or {}).items():
        out.append((f"{name}: windows a second", f"{p['windows_s']:,.0f}"))
        out.append(
            (f"{name}: receive + decode + windows, person-frames a second", f"{p['front_person_frames_s']:,.0f}")
        )
    return out


def title(report: dict[str, Any]) -> str:
    """One line: the machine, the date, the engine and the load."""
    load = report["load"]
    return (
        f"{report['machine']}; {report['date']}; {report['engine']}; {load['cameras']} cameras, "
        f"{load['people']} people each, {load['fps']:g} fps, a window every {report['settings']['stride']:g} s"
    )


def tables(report: dict[str, Any]) -> list[Table]:
    """The report for a terminal."""
    table = Table("measured", "", title=title(report), title_justify="left")
    for row in rows(report):
        table.add_row(*row)
    return [table]


def markdown(report: dict[str, Any]) -> str:
    """The report for a page."""
    body = "\n".join(f"| {name} | {value} |" for name, value in rows(report))
    return f"{title(report)}.\n\n| measured | |\n|---|---|\n{body}\n"
