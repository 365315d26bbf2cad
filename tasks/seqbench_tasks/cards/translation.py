"""The card of ``translation``."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import DataFile, Dataset, Defaults, Metric, SectionCard, TaskCard, option


@dataclass(frozen=True)
class TranslationOptions:
    """Options of ``translation``."""

    pair: str = option(
        "auto",
        "source and target language; auto is the dataset's first pair",
        choices=("auto", "en-de", "de-en", "en-fr", "fr-en", "en-pt", "pt-en"),
    )
    attention: str = option(
        "additive",
        "how the decoder attends to the source; a model's own decoder serves where this is not none",
        choices=("additive", "dot", "scaled-dot", "none"),
    )
    directions: str = option("both", "whether the encoder reads in both directions", choices=("both", "one"))
    vocabulary: int = option(2000, "subword pieces of each language, at most (not on embedded)", low=64, high=64_000)
    max_length: int = option(60, "the longest training sentence, in tokens with the end", low=8, high=1000)
    beam: int = option(4, "hypotheses of the beam search on the test set", low=1, high=64)
    length_penalty: float = option(1.0, "the exponent of the length in a hypothesis's score", low=0.0, high=5.0)


_MULTI30K = (
    "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/task1/raw/"
)

MULTI30K = Dataset(
    name="multi30k",
    summary="image captions, de-en, en-de, en-fr, fr-en: 29,000 train, 1,014 valid, 1,000 test (2016, Flickr)",
    files=tuple(
        DataFile(f"multi30k/{name}.gz", f"{_MULTI30K}{name}.gz", sha256, size)
        for name, sha256, size in (
            ("train.en", "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f", 568_929),
            ("train.de", "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6", 637_044),
            ("train.fr", "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c", 604_242),
            ("val.en", "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28", 21_650),
            ("val.de", "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a", 24_681),
            ("val.fr", "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9", 23_001),
            ("test_2016_flickr.en", "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9", 21_077),
            ("test_2016_flickr.de", "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8", 22_890),
            ("test_2016_flickr.fr", "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90", 22_310),
        )
    ),
    licence="none stated for the text (Elliott et al. 2016, 2017); the images, not used here, are for research",
    defaults=Defaults(parameters=1_500_000, steps=4000, batch=64, lr=3e-3, dropout=0.1),
)

_TATOEBA = (
    "https://raw.githubusercontent.com/Helsinki-NLP/OPUS-MT-testsets/ac0f19c0be3cb4e0d9450fcb2d7a9847c4bdd180/"
    "datasets/helsinki_nlp/tatoeba/testsets/eng-por/"
)

TATOEBA = Dataset(
    name="tatoeba",
    summary="Tatoeba en-pt (small; default en-pt, pt-en): 10,000 train, 1,574 valid, 3,222 test",
    files=tuple(
        DataFile(f"tatoeba_en_pt/{name}", f"{_TATOEBA}{name}", sha256, size)
        for name, sha256, size in (
            (
                "tatoeba-test-v2020-07-28.eng",
                "7c7beef02e344d4ef36c60618385ef0b98fa7967008e99f862cc4b1a7083cf0b",
                331_410,
            ),
            (
                "tatoeba-test-v2020-07-28.por",
                "235a5c294a9a56c78ffb488944f25e5d7e1f350c8f47a4cb0e59cc9ad3f6ec33",
                363_729,
            ),
            (
                "tatoeba-test-v2021-03-30.eng",
                "290108f366001a979924257acb19421c30256475068a82cbb908907cee510f08",
                387_400,
            ),
            (
                "tatoeba-test-v2021-03-30.por",
                "c72d61b33e594dc909814bfe790fe304a675403b49c8065622624ff6c60fa31a",
                424_359,
            ),
            (
                "tatoeba-test-v2021-08-07.eng",
                "e6e3bdd486f121fe4876439d92bf52cdc6faab7cdf816888360465bc61f11fab",
                468_043,
            ),
            (
                "tatoeba-test-v2021-08-07.por",
                "8a5148ff3b5515cb4948e9b17621bed646851c13ad1d217c2e4ab6e3ac081389",
                511_349,
            ),
        )
    ),
    licence="CC BY 2.0 FR (tatoeba.org)",
    defaults=Defaults(parameters=1_500_000, steps=2000, batch=64, lr=3e-3, dropout=0.1),
)

TRANSLATION_TAKES = "a mapping of train, valid and test to pairs (source sentence, target sentence)"

TRANSLATION = TaskCard(
    name="translation",
    summary="Translation: an encoder reads a sentence, a decoder writes it in another language.",
    factory="seqbench_tasks.translation:Translation",
    metrics=(
        Metric(
            "bleu", "corpus BLEU of the beam search's output (sacrebleu; its signature is in the record)", "", False
        ),
        Metric("bleu_greedy", "the same of greedy decoding; on valid of up to 100 sentences", "", False),
        Metric("chrf", "corpus chrF of the beam search's output (sacrebleu)", "", False),
        Metric("exact", "share of sentences whose output by beam search equals the reference", "%", False),
        Metric("token_accuracy", "share of tokens that are the likeliest one after the true ones before", "%", False),
        Metric("loss", "cross-entropy per target token, the end included, after the true ones before", "nats"),
    ),
    datasets=(
        Dataset(
            "embedded",
            "made-up English to Portuguese of known optimum: 30,000 train, 500 valid, 1,000 test pairs",
        ),
        MULTI30K,
        TATOEBA,
    ),
    takes=TRANSLATION_TAKES,
    select="loss",
    options=TranslationOptions,
    defaults=Defaults(parameters=200_000, steps=800, batch=64, lr=5e-3),
    citation="Sutskever, Vinyals, Le 2014, Sequence to sequence learning with neural networks, arXiv:1409.3215; "
    "Bahdanau, Cho, Bengio 2015, arXiv:1409.0473; scored as in Post 2018, A call for clarity in reporting BLEU scores",
)

SECTIONS = tuple(
    SectionCard(name, "translation", f"seqbench_tasks.translation_report:{name.replace('-', '_')}", across)
    for name, across in (
        ("translations", False),
        ("alignments", False),
        ("score-by-length", False),
        ("bleu-by-budget", False),
        ("attention-compared", True),
    )
)
