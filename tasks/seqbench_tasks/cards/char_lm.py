"""The card of ``char-lm``."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import DataFile, Dataset, DatasetCard, Defaults, Metric, SectionCard, TaskCard, option


@dataclass(frozen=True)
class CharLmOptions:
    """Options of ``char-lm``."""

    window: int = option(128, "characters in a window, in training and in scoring", low=2, high=4096)
    carried: bool = option(False, "also score with the state carried along the text (metric nats_carried)")
    temperature: float = option(0.8, "of the generated sample; 0 takes the likeliest character", low=0.0, high=10.0)
    sample: int = option(400, "characters to generate for the report; 0 for none", low=0, high=10_000)


SHAKESPEARE = Dataset(
    name="shakespeare",
    summary="tiny Shakespeare, 1,115,394 characters of English: first 90 % train, then 5 % valid, 5 % test",
    files=(
        DataFile(
            path="shakespeare/input.txt",
            url="https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e/data/tinyshakespeare/input.txt",
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            size=1_115_394,
        ),
    ),
    licence="the text is in the public domain; the repository karpathy/char-rnn says MIT",
)

_MACHADO = (
    "https://raw.githubusercontent.com/luxedo/dataset-machado-de-assis/a13ca4a72f268f46db64804a67930d4c0f6db8e7/"
    "txt/romance/"
)

MACHADO = Dataset(
    name="machado",
    summary="five novels by Machado de Assis, 1,860,972 characters of Portuguese: four train, the fifth valid and test",
    files=tuple(
        DataFile(f"machado/{name}", _MACHADO + name, sha256, size)
        for name, sha256, size in (
            ("memoriasBras.txt", "3cb24e357d9c5ae7c95b4efb4949e7b8838a528577281bc875f6e8e9a9780bba", 365_645),
            ("quincas.txt", "dc7b6452a1aa0f9bfe170035b25bcdef8d2b528fe081fe2aa2d5a6d76a2b5be1", 458_506),
            ("domCasmurro.txt", "d2d0da51e599361f12347905e9aedd32527912e0676111131bd919f792ef9360", 383_745),
            ("esau.txt", "2c6c40a46e0b37157438a0652a859b265c90fcb3f8992dc68035c427dc365ea2", 423_337),
            ("memorial-de-aires.txt", "76343d1bb6ab6dd58cc9623d3862f852ebb706b1b6dc827066d83bffa3e78289", 289_982),
        )
    ),
    licence="the works are in the public domain (the author died in 1908); text published by MEC and NUPILL/UFSC",
)

CHAR_LM_TAKES = (
    "one text (its first 90 % train, then 5 % valid, 5 % test) or a mapping of train, valid and test to texts"
)

CHAR_LM = TaskCard(
    name="char-lm",
    summary="Character language model: predict the next character of a text.",
    factory="seqbench_tasks.char_lm:CharLm",
    metrics=(
        Metric("nats", "cross-entropy per character over windows that start from a zero state", "nats"),
        Metric("bits", "the same in bits per character", "bits"),
        Metric("nats_carried", "cross-entropy per character with the state carried along the text", "nats"),
    ),
    datasets=(
        Dataset("embedded", "made-up language of exactly known entropy: 300,000 train, 30,000 valid, 30,000 test"),
    ),
    takes=CHAR_LM_TAKES,
    select="nats",
    options=CharLmOptions,
    defaults=Defaults(parameters=130_000, steps=1000, batch=32, lr=1e-2),
    citation="Shannon 1951, Prediction and Entropy of Printed English; with networks: Sutskever, Martens, Hinton 2011, "
    "Generating Text with Recurrent Neural Networks",
)

CHAR_LM_DATASETS = (
    DatasetCard("char-lm", SHAKESPEARE, "seqbench_tasks.char_lm:shakespeare_text"),
    DatasetCard("char-lm", MACHADO, "seqbench_tasks.char_lm:machado_text"),
)

_REPORT = "seqbench_tasks.char_lm_report"

CHAR_LM_SECTIONS = (
    SectionCard("loss-by-position", "char-lm", f"{_REPORT}:loss_by_position"),
    SectionCard("surprises", "char-lm", f"{_REPORT}:surprises"),
    SectionCard("generated-text", "char-lm", f"{_REPORT}:generated_text"),
)
