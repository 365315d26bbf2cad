from __future__ import annotations

import numpy as np

from seqbench.api import TrialView
from seqbench_tasks.sections import generated_text


def view(label, seed, *, nats=1.5, **arrays):
    record = {"metrics": {"test": {"nats": nats}}}
    return TrialView(
        "char-lm/embedded", label, "#000000", seed, record, {name: np.array(value) for name, value in arrays.items()}
    )


def sampled(label, seed, text, **more):
    return view(label, seed, prompt="To be", sample=text, temperature=0.8, **more)


def test_one_block_for_each_model_from_its_first_seed():
    views = [sampled("lstm", 2, " late"), sampled("gru", 1, " so\n  it"), sampled("lstm", 1, " early")]
    section = generated_text(views)
    introduction, lstm, gru = section.blocks
    assert introduction.kind == "text"
    assert (lstm.kind, lstm.content) == ("code", "To be▌ early")
    assert gru.content == "To be▌ so\n  it"
    assert gru.caption == "gru, 1.500 nats per character, temperature 0.8"


def test_a_model_without_a_sample_is_named_with_its_reason():
    section = generated_text([view("cnn", 1, refused="it cannot step")])
    assert section.blocks[1].caption == "cnn"
    assert section.blocks[1].content == "No sample: it cannot step."


def test_a_score_that_is_not_there_is_left_out():
    section = generated_text([sampled("lstm", 1, " x", nats=None)])
    assert section.blocks[1].caption == "lstm, temperature 0.8"


def test_no_samples_no_section():
    assert generated_text([]) is None
    assert generated_text([view("lstm", 1)]) is None
