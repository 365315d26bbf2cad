from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from seqbench.api import TrialView
from seqbench_tasks.char_lm_report import FULL, generated_text, loss_by_position, octaves, surprises


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


# --- loss by position ---


def positions(label, seed, nats, **more):
    return view(label, seed, **{"position-nats": np.asarray(nats, np.float32), "windows": 1234}, **more)


@pytest.mark.parametrize("window", [2, 3, 7, 8, 9, 128, 4096])
@pytest.mark.parametrize("per_octave", [1, 3])
def test_octaves_hold_every_position_once_and_are_no_wider_than_they_say(window, per_octave):
    parts = octaves(window, per_octave)
    assert np.concatenate(parts).tolist() == list(range(1, window + 1))
    assert all(len(part) for part in parts)
    # from the end of one part to the end of the next is a factor of 2 ** (1 / per_octave), up to rounding
    ends = [part[-1] for part in parts]
    assert all(b <= max(a + 1, (a + 0.5) * 2 ** (1 / per_octave) + 0.5) for a, b in itertools.pairwise(ends))


def test_octaves_read_as_powers_of_two():
    assert [(part[0], part[-1]) for part in octaves(20, 1)] == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 20)]


def test_losses_by_position_are_drawn_as_means_over_seeds_and_positions():
    one, two = np.arange(8, 0, -1), np.arange(8, 0, -1) + 1.0
    best = {"position-best": np.full(8, 0.25, np.float32)}
    section = loss_by_position([positions("gru", 1, two, **best), positions("gru", 0, one, **best)])
    assert "1,234 full windows" in section.blocks[0].content
    assert "nobody can beat" in section.blocks[0].content
    gru, optimum = section.blocks[1].content.axes[0].get_lines()
    assert gru.get_xdata() == pytest.approx([1, 2, 3, 4, 5, 6, math.sqrt(56)])
    assert gru.get_ydata() == pytest.approx([8.5, 7.5, 6.5, 5.5, 4.5, 3.5, 2.0])
    assert optimum.get_ydata() == pytest.approx([0.25] * 7)
    assert section.blocks[2].content == [
        ["model", "1", "2 to 4", "5 to 8"],
        ["gru", "8.500", "6.500", "3.000"],
        ["best possible", "0.250", "0.250", "0.250"],
    ]


def test_nothing_is_said_of_a_best_that_is_not_known():
    section = loss_by_position([positions("gru", 0, np.ones(4))])
    assert "nobody can beat" not in section.blocks[0].content
    assert len(section.blocks[1].content.axes[0].get_lines()) == 1
    assert [row[0] for row in section.blocks[2].content] == ["model", "gru"]


def test_no_losses_no_section():
    assert loss_by_position([view("gru", 0)]) is None
    assert surprises([view("gru", 0)]) is None


# --- surprises ---


def read(label, seed, nats, text="ab\nc d", likeliest="xx \nxx"):
    kept = {"passage": list(text), "passage-nats": nats, "passage-likeliest": list(likeliest)}
    return view(label, seed, **kept, **{"passage-probability": [0.5] * 5 + [0.0004]})


def test_the_passage_is_shown_once_for_each_model_from_its_first_seed():
    section = surprises([read("gru", 1, [9.0] * 6), read("lstm", 0, [0.0] * 6), read("gru", 0, [0, 3, 1, 0, 7, 1])])
    _, legend, gru, lstm, _, _ = section.blocks
    assert [(strength, float(text)) for text, strength, _ in legend.content] == [(n / FULL, n) for n in range(7)]
    assert (gru.kind, gru.caption) == ("marked", "gru, seed 0, 1.500 nats per character")
    assert "".join(text for text, _, _ in gru.content) == "ab↵\nc d"
    assert [strength for _, strength, _ in gru.content] == pytest.approx([0, 0.5, 1 / 6, 0, 1, 1 / 6])
    assert {strength for _, strength, _ in lstm.content} == {0}
    assert gru.content[1][2] == "b: 3.00 nats (5.0 %); likeliest x (50.0 %)"
    assert gru.content[2][2] == "↵: 1.00 nats (36.8 %); likeliest ␣ (50.0 %)"
    assert gru.content[4][2] == "␣: 7.00 nats (under 0.1 %); likeliest x (50.0 %)"
    assert gru.content[5][2].endswith("likeliest x (under 0.1 %)")


def test_the_table_has_the_characters_of_the_largest_mean_loss():
    section = surprises([read("gru", 0, [0, 3, 1, 0, 7, 1]), read("lstm", 0, [0, 6, 0, 0.5, 0, 0])])
    table = section.blocks[4].content
    assert table[0] == ["after", "came", "gru", "lstm"]
    assert table[1] == ["a", "b", "3.0, x 50.0 %", "6.0, x 50.0 %"]
    assert table[2] == ["ab↵c", "␣", "7.0, x 50.0 %", "0.0, x 50.0 %"]
    assert [row[1] for row in table[1:]] == ["b", "␣", "↵", "d", "c", "a"]
