"""The settings of a run, frozen and checked. Defaults are the paper's; presets say what a dataset changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

AUTO = "auto"
# Bounds far above any sensible setting: a mistyped or forged one is refused before anything is allocated for it.
MOST = 10**6
"""Of what is counted and has no bound of its own: epochs, batches, frames, words of a vocabulary."""
LARGEST = 1e12
"""Of weights, costs, rates and seconds."""
MOST_LAYERS = 128
MOST_SLOTS = 10_000
MOST_WORDS = 10_000
WIDEST = 65_536
"""Of a layer."""
WIDEST_FEATURES = 2**20
MOST_WEIGHTS = 2 * 10**9
"""Of the whole network, counted roughly: 8 GB in float32. The paper's has about 10 million."""
SHORTEST_CLIP = 1e-3

Positive = Annotated[int, Field(gt=0, le=MOST)]
Layers = Annotated[int, Field(gt=0, le=MOST_LAYERS)]
Width = Annotated[int, Field(gt=0, le=WIDEST)]
FeatureWidth = Annotated[int, Field(gt=0, le=WIDEST_FEATURES)]
NonNegative = Annotated[float, Field(ge=0, le=LARGEST)]
PositiveReal = Annotated[float, Field(gt=0, le=LARGEST)]
Probability = Annotated[float, Field(ge=0, lt=1)]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _size_or_auto(value: Any) -> Any:
    if value == AUTO:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MOST:
        raise ValueError(f"give a number of words above 0, at most {MOST:,}, or '{AUTO}'")
    return value


VocabularySize = Annotated[int | Literal["auto"], PlainValidator(_size_or_auto)]
Names = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Splits = Annotated[tuple[str, ...], Field(min_length=1), BeforeValidator(_as_tuple)]


class Section(BaseModel):
    """A part of the config: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetConfig(Section):
    """Where the data lies and how a video and its queries are cut up."""

    name: str = Field(description="Which annotation reader to use.")
    annotations: str = Field(description="Folder of the annotation files, under the data root.")
    features: Splits = Field(description="Feature files under the data root, in the order they are concatenated.")
    videos: str = Field(
        default="", description="Folder of videos whose features are extracted where they are missing; empty for none."
    )
    backbones: Names = Field(
        default=(), description="What extracts them, e.g. clip-b32; decides features, feature_dims and video_dim."
    )
    feature_dims: tuple[FeatureWidth, ...] = Field(
        default=(), description="Usual width of each feature file, to find swapped ones; empty for unknown."
    )
    clip_len: float = Field(
        le=LARGEST, description="Seconds of video a feature frame stands for; -1 spreads the frames over the duration."
    )
    max_frames: Positive = Field(description="Longer videos are shortened to this many frames.")
    shorten: Literal["mean", "first"] = Field(
        default="mean", description="How: average into bins, or keep the first frames."
    )
    max_words: Positive = Field(le=MOST_WORDS, description="Longer sentences are cut to this many words.")
    max_windows: Positive = Field(default=5, description="Windows kept of a query that has more.")
    max_gather_size: int = Field(
        default=-1, ge=-1, le=MOST, description="Queries of a video that form a group; -1 puts them all in one."
    )
    span_unit: Literal["duration", "frames"] = Field(
        default="duration", description="Windows are shares of the duration, or of the length of all frames."
    )
    context: Literal["video", "group"] = Field(
        default="video", description="Frames that SS-MESM looks at: the query's video, or its whole group's."
    )
    train: str = Field(default="train", description="Split to train on; a path where the dataset is jsonl.")
    eval: Splits = Field(description="Splits that choose the best checkpoint: validation where there is one.")
    paper_eval: Splits = Field(description="Splits the paper chose on (test splits: see train.select_on).")

    @model_validator(mode="after")
    def _clip_len_is_a_length_or_minus_one(self) -> Self:
        if self.clip_len < SHORTEST_CLIP and self.clip_len != -1:
            raise ValueError(f"clip_len is a positive number of seconds, at least {SHORTEST_CLIP:g}, or -1")
        if self.max_gather_size == 0:
            raise ValueError("max_gather_size is a positive number of queries, or -1 for all")
        return self


class TextConfig(Section):
    """How sentences become word vectors and masked-word labels."""

    encoder: str = Field(description="Frozen text encoder: a GloVe table, the words of a glove.pkl, or CLIP.")
    glove: str = Field(
        default="glove.6B.300d.txt", description="glove: text file (plain, .gz or .zip), under the data root."
    )
    vocabulary: str = Field(
        default="glove.pkl", description="glove-pkl: glove.pkl or a vocabulary file, in the annotations' folder."
    )
    clip: str = Field(default="clip_text_encoder.safetensors", description="clip: text weights, under the data root.")
    clip_dtype: Literal["float32", "float16"] = Field(
        default="float32", description="clip: numbers to encode with on CUDA; always float32 on the CPU."
    )
    counts: str = Field(default="GloVe_tokenized_count.txt", description="Count file, in the annotations' folder.")
    vocab_size: VocabularySize = Field(
        description="Most frequent words that masked-word reconstruction tells apart; auto: all that were counted."
    )
    tagger: Literal["lexicon", "nltk"] = Field(
        default="lexicon", description="Who weighs words and splits sentences: the shipped lexicon, or NLTK."
    )

    @property
    def label_words(self) -> int:
        """Number of words that masked-word reconstruction tells apart.

        Raises:
            ValueError: it is ``auto``, and nobody has counted them yet (``Config.with_label_words``).
        """
        if isinstance(self.vocab_size, str):
            raise ValueError("text.vocab_size is auto: the words have not been counted")
        return self.vocab_size

    @property
    def classes(self) -> int:
        """Classes of masked-word reconstruction: the label words, unknown, and with CLIP start and end."""
        return self.label_words + (3 if self.encoder == "clip" else 1)


class ModelConfig(Section):
    """The network."""

    video_dim: FeatureWidth = Field(description="Width of the video features, all files together.")
    text_dim: Width = Field(description="Width of the word vectors.")
    hidden_dim: Width = Field(default=256, description="Width d of the network.")
    heads: Width = Field(default=8, description="Attention heads; they divide hidden_dim.")
    dim_feedforward: Width = Field(default=1024, description="Width of the feed-forward networks.")
    frame_word_layers: Layers = Field(default=2, description="FW-MESM layers.")
    aligner_layers: Layers = Field(default=2, description="Layers of the aligner (t2v_layers in the paper's code).")
    encoder_layers: Layers = Field(default=2, description="Self-attention layers over the frames.")
    decoder_layers: Layers = Field(default=2, description="Layers of the decoder of moments.")
    segment_sentence_layers: Layers = Field(default=4, description="SS-MESM layers.")
    frame_word: bool = Field(default=True, description="FW-MESM on (rec_fw in the paper's code).")
    segment_sentence: bool = Field(default=True, description="SS-MESM on (rec_ss in the paper's code).")
    share_feedforward: bool = Field(
        default=True,
        description="One feed-forward for both roles of the FW encoder (share_MLP in the paper's code).",
    )
    slots: Positive = Field(default=10, le=MOST_SLOTS, description="Moment slots of the decoder (num_queries).")
    text_positions: bool = Field(default=False, description="Learned word positions (use_txt_pos).")
    projection_layers: Layers = Field(default=2, description="Layers of each input projection.")
    dropout: Probability = Field(default=0.1, description="Dropout of attention and feed-forward layers.")
    input_dropout: Probability = Field(default=0.5, description="Dropout of the input projections.")
    fast: bool = Field(
        default=True, description="Compute by packed frames and kernels where they exist; off: by the plain modules."
    )

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.hidden_dim % self.heads:
            raise ValueError(f"hidden_dim ({self.hidden_dim}) must be a multiple of heads ({self.heads})")
        if self.hidden_dim % 4:
            raise ValueError(f"hidden_dim ({self.hidden_dim}) must be a multiple of 4 (sine positions)")
        return self

    @model_validator(mode="after")
    def _weights_fit_in_memory(self) -> Self:
        if self.rough_weights > MOST_WEIGHTS:
            raise ValueError(
                f"such a network has about {self.rough_weights / 1e9:.2g} billion weights, at most "
                f"{MOST_WEIGHTS / 1e9:g} billion are allowed: use fewer or narrower layers"
            )
        return self

    @property
    def rough_weights(self) -> int:
        """Number of weights, to a factor of about two: the matrices of attention, feed-forwards and projections."""
        width, layers = self.hidden_dim, self.aligner_layers + self.encoder_layers + 2 * self.decoder_layers
        layers += self.frame_word_layers * self.frame_word + self.segment_sentence_layers * self.segment_sentence
        inputs = self.video_dim + self.text_dim + 2 * (self.projection_layers - 1) * width
        return layers * width * (4 * width + 2 * self.dim_feedforward) + inputs * width


class LossConfig(Section):
    """Matching costs, loss weights and the constants inside the losses."""

    cost_span: NonNegative = Field(default=10.0, description="Matching cost of the L1 distance of spans.")
    cost_giou: NonNegative = Field(default=1.0, description="Matching cost of the gIoU.")
    cost_class: NonNegative = Field(default=4.0, description="Matching cost of the foreground probability.")
    span: NonNegative = Field(default=10.0, description="Weight of the L1 loss of spans.")
    giou: NonNegative = Field(default=1.0, description="Weight of the gIoU loss.")
    label: NonNegative = Field(default=4.0, description="Weight of the classification of slots.")
    saliency: NonNegative = Field(default=4.0, description="Weight of the saliency loss.")
    rec_fw: NonNegative = Field(default=0.1, description="Weight of masked-word reconstruction (FW-MESM).")
    rec_ss: NonNegative = Field(default=0.1, description="Weight of sentence reconstruction (SS-MESM).")
    weights: dict[str, NonNegative] = Field(default={}, description="Weights of losses that were added to the table.")
    eos_coef: NonNegative = Field(default=0.1, description="Weight of background slots in the label loss.")
    aux: bool = Field(default=True, description="Losses on every decoder layer, not only the last.")
    rank_coef: PositiveReal = Field(default=12.0, description="The rank loss of the saliency is divided by it.")
    triplet: bool = Field(default=False, description="Add hinge triplets to the saliency loss.")
    margin: NonNegative = Field(default=0.2, description="Margin of the triplets.")
    iou_gamma: float = Field(default=0.9, ge=-1, le=1, description="gIoU from which two moments share a text.")
    tau: float = Field(default=0.5, ge=1e-6, le=LARGEST, description="Temperature of the segment-sentence contrast.")

    def weight(self, name: str) -> float | None:
        """Return the weight of a loss: its own setting's value, else that in ``weights``, else None."""
        if name in type(self).model_fields:
            return float(getattr(self, name))
        return self.weights.get(name)


class TrainConfig(Section):
    """Optimisation and what a run keeps."""

    batch_size: Positive = Field(default=12, description="Groups a batch.")
    epochs: Positive = Field(default=200, description="Passes over the training split.")
    lr: PositiveReal = Field(default=2e-4, description="Learning rate of AdamW.")
    weight_decay: NonNegative = Field(default=1e-4, description="Weight decay of AdamW.")
    lr_drop: Positive = Field(default=400, description="Epochs after which the learning rate drops.")
    gamma: PositiveReal = Field(default=0.1, description="Factor by which it drops.")
    grad_clip: float = Field(
        default=0.1, ge=-LARGEST, le=LARGEST, description="Largest gradient norm; 0 or less does not clip."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=2019, description="Decides weights and all draws.")
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="fp32",
        description="Numbers of matrix products: float32, on CUDA with TF32 factors, or bfloat16 "
        "(on CPUs without AMX in the feed-forwards only).",
    )
    accumulate: Positive = Field(default=1, description="Batches whose gradients are averaged into one step.")
    compile: bool = Field(default=False, description="Compile the model (torch.compile); for GPUs.")
    save_minutes: NonNegative = Field(default=10.0, description="Minutes between checkpoints within an epoch; 0: none.")
    keep: int = Field(default=2, gt=0, le=1000, description="Newest checkpoints kept to resume from.")
    loggers: tuple[str, ...] = Field(
        default=("tensorboard",), description="Where curves go besides metrics.jsonl; wandb and mlflow are extras."
    )
    eval_every: Positive = Field(default=1, description="Epochs between evaluations.")
    eval_untrained: bool = Field(default=False, description="Also evaluate before the first epoch.")
    patience: int = Field(
        default=-1,
        ge=-MOST,
        le=MOST,
        description="Evaluations without a better score before training stops; -1 never stops.",
    )
    select_on: Literal["val", "paper"] = Field(
        default="val",
        description="Splits that choose the best checkpoint: validation, or the paper's protocol (test).",
    )


class EvalConfig(Section):
    """Evaluation and the way from outputs to moments."""

    batch_size: Positive = Field(default=30, description="Groups a batch.")
    max_time: PositiveReal = Field(
        description="Evaluation clamps windows to this many seconds, or to the end of a longer video."
    )
    select: str = Field(default="mIoU", description="Figure of the summary that chooses the checkpoint, e.g. R1@0.5.")
    thresholds: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        min_length=1,
        max_length=1000,
        default=(0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        description="IoU thresholds of R1.",
    )
    superlong: bool = Field(default=False, description="Also report moments of 150 to 600 seconds.")


class DataConfig(Section):
    """How features are held while a run lasts."""

    cache_gb: NonNegative = Field(default=8.0, description="Memory for normalised features.")
    keep_as: Literal["float16", "float32"] = Field(
        default="float16", description="Numbers that normalised features are kept as; all are rounded to it."
    )


class Config(Section):
    """Everything that decides a run."""

    dataset: DatasetConfig
    text: TextConfig
    model: ModelConfig
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig
    data: DataConfig = DataConfig()

    def with_label_words(self, number: int) -> Config:
        """Return the config with ``number`` for a ``text.vocab_size`` of ``auto``."""
        if self.text.vocab_size != AUTO:
            return self
        return self.model_copy(update={"text": self.text.model_copy(update={"vocab_size": number})})

    @property
    def select_splits(self) -> tuple[str, ...]:
        """Splits that choose the best checkpoint."""
        paper = self.train.select_on == "paper"
        return self.dataset.paper_eval if paper else self.dataset.eval
