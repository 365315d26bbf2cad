"""The report sections of the built-in tasks."""

from __future__ import annotations

from seqbench.api import Block, Section, TrialView

INTRODUCTION = (
    "Each model (its first seed) continues the same prompt, the beginning of the validation text. "
    "Samples show what a model has learned; they are no measure of it."
)


def generated_text(views: list[TrialView]) -> Section | None:
    """``char-lm``: what each model writes."""
    first: dict[str, TrialView] = {}
    for view in sorted(views, key=lambda v: v.seed):
        if "sample" in view.arrays or "refused" in view.arrays:
            first.setdefault(view.label, view)
    if not first:
        return None
    order = {view.label: place for place, view in reversed(list(enumerate(views)))}  # first appearance
    blocks = [_block(first[label]) for label in sorted(first, key=order.__getitem__)]
    return Section("Generated text", (Block("text", INTRODUCTION), *blocks))


def _block(view: TrialView) -> Block:
    if "refused" in view.arrays:
        return Block("text", f"No sample: {view.arrays['refused']}.", caption=view.label)
    caption = f"{view.label}{_score(view)}, temperature {float(view.arrays['temperature']):g}"
    return Block("code", f"{view.arrays['prompt']}▌{view.arrays['sample']}", caption=caption)


def _score(view: TrialView) -> str:
    test = (view.record.get("metrics") or {}).get("test") or {}
    nats = test.get("nats")
    return "" if nats is None else f", {nats:.3f} nats per character"
