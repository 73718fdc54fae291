"""The settings of a run, immutable and validated. Defaults are the paper's; presets hold what a dataset changes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

AUTO = "auto"
# Bounds far above any sensible value, so that mistyped or forged settings are refused before anything is allocated.
MOST = 10**6
"""Upper bound of counts without a bound of their own: epochs, batches, frames, words of a vocabulary."""
LARGEST = 1e12
"""Upper bound of weights, costs, rates and seconds."""
MOST_LAYERS = 128
MOST_SLOTS = 10_000
MOST_WORDS = 10_000
WIDEST = 65_536
"""Upper bound of the width of a layer."""
WIDEST_FEATURES = 2**20
MOST_WEIGHTS = 2 * 10**9
"""Upper bound of the estimated number of weights: 8 GB in float32. The paper's network has about 10 million."""
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
    """A section of the config. It is immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DatasetConfig(Section):
    """Paths of the data, and how videos and queries are prepared."""

    name: str = Field(description="Name of the annotation reader.")
    annotations: str = Field(description="Folder of the annotation files, under the data root.")
    features: Splits = Field(description="Feature files under the data root, in the order they are concatenated.")
    videos: str = Field(
        default="", description="Folder of videos; missing features are extracted from them. Empty for none."
    )
    backbones: Names = Field(
        default=(),
        description="Backbones that extract them, e.g. clip-b32; they determine features, feature_dims and video_dim.",
    )
    feature_dims: tuple[FeatureWidth, ...] = Field(
        default=(), description="Usual width of each feature file, to detect swapped files; empty if unknown."
    )
    clip_len: float = Field(
        le=LARGEST, description="Seconds of video per feature frame; -1 spreads the frames over the duration."
    )
    max_frames: Positive = Field(description="Longer videos are shortened to this many frames.")
    shorten: Literal["mean", "first"] = Field(
        default="mean", description="How to shorten videos: average frames into bins, or keep the first ones."
    )
    max_words: Positive = Field(le=MOST_WORDS, description="Longer sentences are cut to this many words.")
    max_windows: Positive = Field(
        default=5, description="Maximum number of windows per query; further ones are dropped."
    )
    max_gather_size: int = Field(
        default=-1, ge=-1, le=MOST, description="Maximum number of queries of a video in a group; -1 for no limit."
    )
    span_unit: Literal["duration", "frames"] = Field(
        default="duration", description="Spans are fractions of the duration, or of the total length of the frames."
    )
    context: Literal["video", "group"] = Field(
        default="video",
        description="Frames that SS-MESM attends to: those of the query's video, or of all videos of its group.",
    )
    train: str = Field(default="train", description="Split to train on; a path if the dataset is jsonl.")
    eval: Splits = Field(description="Splits that select the best checkpoint: validation if there is one.")
    paper_eval: Splits = Field(
        description="Splits that selected the paper's checkpoint (test splits; see train.select_on)."
    )

    @model_validator(mode="after")
    def _clip_len_is_a_length_or_minus_one(self) -> Self:
        if self.clip_len < SHORTEST_CLIP and self.clip_len != -1:
            raise ValueError(f"clip_len must be a positive number of seconds, at least {SHORTEST_CLIP:g}, or -1")
        if self.max_gather_size == 0:
            raise ValueError("max_gather_size must be a positive number of queries, or -1 for all")
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
        default="float32", description="clip: precision of the encoder on CUDA; always float32 on the CPU."
    )
    counts: str = Field(default="GloVe_tokenized_count.txt", description="Count file, in the annotations' folder.")
    vocab_size: VocabularySize = Field(
        description="Most frequent words that are classes of masked-word reconstruction; auto: all words."
    )
    tagger: Literal["lexicon", "nltk"] = Field(
        default="lexicon", description="Splits sentences and weights words: the included lexicon, or NLTK."
    )

    @property
    def label_words(self) -> int:
        """Number of words that are classes of masked-word reconstruction.

        Raises:
            ValueError: ``vocab_size`` is ``auto``; replace it with ``Config.with_label_words`` first.
        """
        if isinstance(self.vocab_size, str):
            raise ValueError("text.vocab_size is auto: the words have not been counted")
        return self.vocab_size

    @property
    def classes(self) -> int:
        """Number of classes of masked-word reconstruction: label words, unknown and, with CLIP, start and end."""
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
        description="One feed-forward for both directions of FW-MESM (share_MLP in the paper's code).",
    )
    slots: Positive = Field(default=10, le=MOST_SLOTS, description="Moment slots of the decoder (num_queries).")
    text_positions: bool = Field(default=False, description="Learned word positions (use_txt_pos).")
    projection_layers: Layers = Field(default=2, description="Layers of each input projection.")
    dropout: Probability = Field(default=0.1, description="Dropout of attention and feed-forward layers.")
    input_dropout: Probability = Field(default=0.5, description="Dropout of the input projections.")
    fast: bool = Field(
        default=True,
        description="Use the faster forward pass where available (packed frames, kernels); off: the reference modules.",
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
        """Estimated number of weights in attention, feed-forwards and projections, to a factor of about two."""
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
    absent: NonNegative = Field(
        default=0.0,
        description="Weight of the loss of queries about other videos, to which all slots should be background; "
        "0: the decoder is not trained with them.",
    )
    weights: dict[str, NonNegative] = Field(default={}, description="Weights of losses added to the table of losses.")
    eos_coef: NonNegative = Field(default=0.1, description="Weight of background slots in the label loss.")
    aux: bool = Field(default=True, description="Compute losses on every decoder layer, not only on the last.")
    rank_coef: PositiveReal = Field(default=12.0, description="Divisor of the rank loss in the saliency loss.")
    triplet: bool = Field(default=False, description="Add hinge triplets to the saliency loss.")
    margin: NonNegative = Field(default=0.2, description="Margin of the triplets.")
    iou_gamma: float = Field(
        default=0.9,
        ge=-1,
        le=1,
        description="Moments of a group with at least this gIoU share their texts as positives.",
    )
    tau: float = Field(default=0.5, ge=1e-6, le=LARGEST, description="Temperature of the segment-sentence contrast.")

    def weight(self, name: str) -> float | None:
        """Return the weight of a loss: the setting of that name, or the entry in ``weights``, or None."""
        if name in type(self).model_fields:
            return float(getattr(self, name))
        return self.weights.get(name)


class TrainConfig(Section):
    """Optimisation, and the files that a run keeps."""

    batch_size: Positive = Field(default=12, description="Groups per batch.")
    epochs: Positive = Field(default=200, description="Passes over the training split.")
    lr: PositiveReal = Field(default=2e-4, description="Learning rate of AdamW.")
    weight_decay: NonNegative = Field(default=1e-4, description="Weight decay of AdamW.")
    lr_drop: Positive = Field(default=400, description="Epochs after which the learning rate drops.")
    gamma: PositiveReal = Field(default=0.1, description="Factor of each drop of the learning rate.")
    grad_clip: float = Field(
        default=0.1, ge=-LARGEST, le=LARGEST, description="Maximum gradient norm; 0 or less disables clipping."
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        default=2019, description="Seed of initial weights and all random draws."
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        default="fp32",
        description="Precision of matrix products: float32, TF32 on CUDA, or bfloat16 "
        "(on the CPU in the feed-forwards and large projections only).",
    )
    accumulate: Positive = Field(default=1, description="Batches whose gradients are averaged into one step.")
    compile: bool = Field(default=False, description="Compile the model and its losses (torch.compile); for GPUs.")
    save_minutes: NonNegative = Field(default=10.0, description="Minutes between checkpoints in an epoch; 0: none.")
    keep: int = Field(default=2, gt=0, le=1000, description="Number of newest checkpoints to keep for resuming.")
    loggers: tuple[str, ...] = Field(
        default=("tensorboard",), description="Loggers of curves besides metrics.jsonl; wandb and mlflow are extras."
    )
    eval_every: Positive = Field(default=1, description="Epochs between evaluations.")
    eval_untrained: bool = Field(default=False, description="Also evaluate before the first epoch.")
    patience: int = Field(
        default=-1,
        ge=-MOST,
        le=MOST,
        description="Evaluations without improvement before training stops; -1 never stops.",
    )
    select_on: Literal["val", "paper"] = Field(
        default="val",
        description="Splits that select the best checkpoint: validation, or those of the paper (test).",
    )


class EvalConfig(Section):
    """Evaluation, and decoding of outputs to moments."""

    batch_size: Positive = Field(default=30, description="Groups per batch.")
    max_time: PositiveReal = Field(
        description="Evaluation clamps windows to this many seconds, or to the duration of a longer video."
    )
    select: str = Field(
        default="mIoU", description="Value of the summary that selects the best checkpoint, e.g. R1@0.5."
    )
    thresholds: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        min_length=1,
        max_length=1000,
        default=(0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95),
        description="IoU thresholds of R1.",
    )
    superlong: bool = Field(default=False, description="Also report moments of 150 to 600 seconds.")


class DataConfig(Section):
    """How features are read and held in memory."""

    cache_gb: NonNegative = Field(default=8.0, description="Memory for normalised features.")
    device_cache_gb: NonNegative = Field(
        default=0.0,
        description="CUDA memory for normalised features. If all fit, training gathers them there and copies none.",
    )
    keep_as: Literal["float16", "float32"] = Field(
        default="float16", description="Type of normalised features; all features are rounded to it."
    )
    readers: int = Field(
        default=1, gt=0, le=64, description="Threads that read features and make batches; results do not change."
    )


class Config(Section):
    """All settings of a run."""

    dataset: DatasetConfig
    text: TextConfig
    model: ModelConfig
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig
    data: DataConfig = DataConfig()

    def with_label_words(self, number: int) -> Config:
        """Return the config with ``text.vocab_size`` set to ``number`` if it is ``auto``."""
        if self.text.vocab_size != AUTO:
            return self
        return self.model_copy(update={"text": self.text.model_copy(update={"vocab_size": number})})

    @property
    def select_splits(self) -> tuple[str, ...]:
        """Splits that select the best checkpoint."""
        paper = self.train.select_on == "paper"
        return self.dataset.paper_eval if paper else self.dataset.eval
