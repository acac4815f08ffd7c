"""Parameters of the flow that trains a student from the stores."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from labelmill.schemas.errors import BadInput
from labelmill.schemas.names import DatasetName
from labelmill.schemas.parameters.fields import (
    PIXELS_MAX,
    Device,
    FlowParameters,
    LocalPath,
    Location,
    TableName,
    make_weights_absolute,
)
from labelmill.schemas.policy_presets import POLICY_FILES

ObjectiveName = Literal["supervised", "relabel", "pseudo", "uda", "mpl"]


def _check_student_weights(weights: str) -> str:
    return weights if weights == "none" else make_weights_absolute(weights)


def _check_policy(policy: str) -> str:
    return make_weights_absolute(policy) if policy.endswith(POLICY_FILES) else policy


def parse_sizes(sizes: str) -> tuple[int, ...]:
    """Return (128, 160) of `128,160`, none of nothing; raise BadInput for anything else."""
    try:
        found = tuple(int(size) for size in sizes.split(",") if sizes)
    except ValueError:
        found = (0,)
    if any(not 8 <= size <= 4096 for size in found):
        raise BadInput(f"expected sizes of 8 to 4096 pixels with commas between them, got {sizes!r}")
    return found


def _check_sizes(sizes: str) -> str:
    parse_sizes(sizes)
    return sizes


PolicyName = Annotated[str, AfterValidator(_check_policy)]


class TrainParameters(FlowParameters):
    """Train a student on what the stores hold, and keep its weights, its curves and where its labels came from."""

    store: Location = Field(description="folder or URL of the store that holds the dataset's tables")
    dataset: DatasetName = Field(description="name of the dataset in the store")
    objective: ObjectiveName = Field(
        "supervised",
        description="supervised: the images' labels; relabel: labels of crops, pooled from label maps; pseudo: also "
        "the pseudo labels of a manifest; uda: consistency on unlabelled images; mpl: meta pseudo labels",
    )
    student: str = Field(
        "wrn_28_2",
        min_length=1,
        description="model name of timm, torchvision/NAME, or for images of 32 pixels wrn_28_2, resnet18_32, conv4",
    )
    student_weights: Annotated[str, AfterValidator(_check_student_weights)] = Field(
        "none", min_length=1, description="where the student starts: none, pretrained, a file, or package:NAME"
    )
    steps: int = Field(ge=1, le=10_000_000, description="steps in all")
    out: LocalPath = Field(description="folder for the student's weights, its class list and its curves")
    batch_size: int = Field(64, ge=1, le=65_536, description="labelled images in a step, over all processes")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="of weights, order and views")

    split: str | None = Field(None, description="split to learn from; default: train where there is one, else all")
    images_version: int | None = Field(None, ge=1, description="version of the images table; default: the latest")
    image_root: Location | None = Field(
        None, description="folder or URL of the images to learn from when they are elsewhere than at ingest"
    )
    labels_per_class: int | None = Field(
        None, ge=1, description="labelled images of each class, drawn by the label seed; default: all"
    )
    label_seed: int | None = Field(None, ge=0, description="of the draw of labelled images; default: the seed")
    validation_per_class: int = Field(
        0, ge=0, description="labelled images of each class that choose among checkpoints and are not learnt from"
    )
    validate_every: int = Field(500, ge=1, description="steps between two looks at the validation images")
    unlabelled_dataset: DatasetName | None = Field(
        None, description="dataset of the unlabelled images; default: the same, where labels are not looked at"
    )
    unlabelled_split: str | None = Field(None, description="its split; default: as for the labelled images")
    unlabelled_ratio: int = Field(7, ge=1, le=64, description="unlabelled or pseudo-labelled images to a labelled one")
    eval_dataset: DatasetName | None = Field(
        None, description="dataset to measure the accuracy on, once, at the end; default: the same"
    )
    eval_split: str | None = Field(
        None, description="its split; default: all of another dataset, test or val of the same one"
    )
    label_maps: TableName | None = Field(
        None, description="table of label maps for the objective relabel; default: DATASET.label_maps"
    )
    label_maps_version: int | None = Field(None, ge=1, description="its version; default: the latest")
    pooling: Literal["default", "paper"] = Field("default", description="how labels of crops are pooled")
    cutmix: float = Field(0.0, ge=0, le=100, description="alpha of CutMix for supervised and relabel; 0: none")
    manifest: TableName | None = Field(
        None, description="table of the objective pseudo, made by select; default: DATASET.manifest"
    )
    manifest_version: int | None = Field(None, ge=1, description="its version; default: the latest")

    input_size: int | None = Field(
        None, ge=8, le=4096, description="pixels of height and width; default: the student's own"
    )
    sizes: Annotated[str, AfterValidator(_check_sizes)] = Field(
        "", description="several sizes with commas between them, one of which each step draws; default: the input size"
    )
    weak_policy: PolicyName = Field(
        "auto", description="augmentation: a preset, a YAML file, or auto: weak-cifar up to 64 pixels, else weak"
    )
    strong_policy: PolicyName = Field(
        "auto", description="of strong views: a preset, a YAML file, or auto: strong-cifar up to 64 pixels, else strong"
    )

    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="sgd is Nesterov's, with momentum 0.9")
    rate: float = Field(0.03, gt=0, le=100, description="learning rate of the head, before the schedule")
    body_rate: float = Field(1.0, ge=0, le=1, description="of all else, as a share of the head's; 0.1 for fine-tuning")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="not on biases and norms")
    schedule: Literal["cosine", "one-cycle", "constant"] = Field("cosine", description="of the rate")
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises; one-cycle has its own")
    average: float = Field(0.999, ge=0, lt=1, description="momentum of the average of weights that is kept; 0: none")
    clip_norm: float = Field(0.0, ge=0, description="largest norm of a gradient; 0: any")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="of labels that are not soft already")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="of the forward pass; fp16 needs a GPU")

    unlabelled_weight: float = Field(1.0, ge=0, le=1000, description="of the unlabelled or pseudo-labelled term")
    ramp_steps: int = Field(0, ge=0, description="steps over which that weight rises from 0")
    threshold: float = Field(0.8, ge=0, le=1, description="of uda and mpl: least probability of a target that counts")
    temperature: float = Field(0.4, gt=0, le=100, description="of uda and mpl: sharpens targets below 1")
    annealing: Literal["none", "linear", "log", "exp"] = Field(
        "none", description="of uda and mpl: schedule by which labelled images that are known well begin to count"
    )
    entropy_weight: float = Field(0.0, ge=0, le=100, description="of the entropy of unlabelled predictions")
    pseudo_label: Literal["sample", "argmax"] = Field(
        "sample", description="of mpl: how the teacher's hard labels are taken; its feedback is right for samples"
    )
    feedback_weight: float = Field(1.0, ge=0, le=1e6, description="of mpl: of the teacher's feedback term")
    wait_steps: int = Field(0, ge=0, description="of mpl: steps before the student begins")
    finetune_steps: int | None = Field(
        None, ge=0, description="of mpl: the last steps, on labelled images alone; default: a tenth of all"
    )
    finetune_rate: float = Field(1e-3, gt=0, le=100, description="of mpl: learning rate of these steps")

    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints; a killed run goes on at one")
    device: Device = Field("auto", description="where the student learns: auto, one, cpu, cuda or cuda:0")
    processes: int = Field(1, ge=1, le=64, description="that share each step: one for a GPU, or some on a CPU")
    threads: int = Field(
        0, ge=0, le=256, description="of a CPU's arithmetic in each process; 0: half of the cores; decides last bits"
    )
    workers: int | None = Field(
        None, ge=0, le=256, description="processes that read, decode and augment, of each process; 0: none of their own"
    )
    cache_mb: int = Field(
        2048, ge=0, le=10_000_000, description="decoded images are kept in memory where all fit into as many megabytes"
    )
    max_pixels: int = Field(PIXELS_MAX, ge=1, description="leave out images with more pixels than this")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.batch_size % self.processes:
            raise ValueError(f"batch_size: expected a multiple of processes ({self.processes}), got {self.batch_size}")
        if self.finetune_steps is not None and self.finetune_steps >= self.steps:
            raise ValueError(f"finetune_steps: expected fewer than steps ({self.steps}), got {self.finetune_steps}")
        if self.cutmix > 0 and self.objective not in ("supervised", "relabel"):
            raise ValueError(f"cutmix: is for supervised and relabel, got objective {self.objective}")
        return self
