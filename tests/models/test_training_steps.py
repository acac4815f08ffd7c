"""Steps of training: which network sees what, and what changes it."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional as F

from labelmill.models import training_steps
from labelmill.models.learner import Learner, LearningSettings
from labelmill.models.objectives import ConsistencySettings
from labelmill.models.training_steps import (
    MplObjective,
    PseudoObjective,
    SupervisedObjective,
    TrainingBatch,
    UdaObjective,
)

CLASSES = 3


class Recorded(nn.Module):
    """A small network that remembers what it saw with a gradient and without."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))
        self.seen = []

    def forward(self, images):
        self.seen.append((len(images), torch.is_grad_enabled()))
        return self.layers(images)


@pytest.fixture
def accelerator():
    return Accelerator(cpu=True)


def make_learner(accelerator, seed, *, average=0.9, rate=0.1):
    model = Recorded(seed)
    groups = [{"params": list(model.parameters()), "lr": rate, "weight_decay": 0.0}]
    settings = LearningSettings(rate=rate, momentum=0.0, average=average)
    return Learner(model, groups, settings, accelerator=accelerator, factor_at=lambda step: 1.0)


def make_batch(step=0, **changes):
    generator = torch.Generator().manual_seed(100 + step)
    batch = {
        "images": torch.randn(4, 3, 2, 2, generator=generator),
        "labels": torch.tensor([0, 1, 2, 0]),
        "weak": torch.randn(6, 3, 2, 2, generator=generator),
        "strong": torch.randn(6, 3, 2, 2, generator=generator),
    }
    return TrainingBatch(**(batch | changes))


def make_mpl(accelerator, *, steps=100, rate=0.1, **settings):
    teacher, student = make_learner(accelerator, 1, average=0.0), make_learner(accelerator, 2, rate=rate)
    given = ConsistencySettings(**({"weight": 0.0} | settings))
    return MplObjective(teacher, student, given, accelerator=accelerator, steps=steps, finetune_rate=0.01)


def weights_of(learner, *, result=False):
    model = learner.result if result else learner.model
    return torch.cat([value.detach().flatten() for value in model.parameters()])


def test_supervised_step_is_plain_gradient_descent(accelerator):
    objective = SupervisedObjective(make_learner(accelerator, 0))
    batch = make_batch()
    other = Recorded(0)
    loss = F.cross_entropy(other(batch.images), batch.labels)
    loss.backward()
    expected = torch.cat([(value - 0.1 * value.grad).detach().flatten() for value in other.parameters()])
    facts = objective.step(batch, 0)
    assert torch.allclose(weights_of(objective.learner), expected, atol=1e-7)
    assert float(facts["loss"]) == pytest.approx(float(loss.detach()))


def test_uda_step_without_weight_ends_with_the_supervised_weights_exactly(accelerator):
    supervised = SupervisedObjective(make_learner(accelerator, 0))
    uda = UdaObjective(make_learner(accelerator, 0), ConsistencySettings(weight=0.0), steps=10)
    for step in range(10):
        supervised.step(make_batch(step), step)
        uda.step(make_batch(step), step)
    assert weights_of(uda.learner).equal(weights_of(supervised.learner))
    assert weights_of(uda.learner, result=True).equal(weights_of(supervised.learner, result=True))


def test_uda_step_keeps_no_gradient_of_the_targets(accelerator):
    objective = UdaObjective(make_learner(accelerator, 0), ConsistencySettings(), steps=10)
    objective.step(make_batch(), 0)
    assert objective.learner.model.seen == [(6, False), (10, True)]


def test_uda_step_with_entropy_has_a_gradient_through_the_weak_views(accelerator):
    objective = UdaObjective(make_learner(accelerator, 0), ConsistencySettings(entropy_weight=0.1), steps=10)
    objective.step(make_batch(), 0)
    assert objective.learner.model.seen[0] == (6, True)


def test_pseudo_step_takes_soft_labels_without_labelled_images(accelerator):
    objective = PseudoObjective(make_learner(accelerator, 0), weight=1.0)
    labels = torch.full((6, CLASSES), 1 / CLASSES)
    facts = objective.step(make_batch(images=None, labels=None, pseudo_labels=labels), 0)
    assert float(facts["loss"]) == pytest.approx(float(facts["unlabelled_loss"]))


def test_mpl_student_sees_labelled_images_only_to_be_measured(accelerator):
    objective = make_mpl(accelerator)
    objective.step(make_batch(), 0)
    assert objective.student.model.seen == [(4, False), (6, True), (4, False)]


def test_mpl_measuring_leaves_the_student_s_running_statistics(accelerator):
    objective = make_mpl(accelerator)
    objective.step(make_batch(), 0)
    alone = Recorded(2)
    alone(make_batch().strong)
    assert objective.student.model.layers[2].running_mean.equal(alone.layers[2].running_mean)


def test_mpl_average_is_of_the_student(accelerator):
    objective = make_mpl(accelerator)
    weights = []
    for step in range(8):
        objective.step(make_batch(step), step)
        weights.append(weights_of(objective.student))
    expected = weights[0]
    for step, taken in enumerate(weights[1:], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * taken
    assert torch.allclose(weights_of(objective.learner, result=True), expected, atol=1e-6)
    assert objective.teacher.average is None


def test_mpl_step_pushes_the_teacher_as_the_student_s_true_improvement_says(accelerator, monkeypatch):
    """In expectation over labels of one image, the teacher's step is that of descending the student's labelled loss."""
    batch = make_batch(weak=torch.ones(1, 3, 2, 2), strong=torch.full((1, 3, 2, 2), 0.5))

    def student_loss_after(label):
        student = LinearStudent()
        student.step(batch.strong, label)
        return student.loss(batch)

    def expected_loss(teacher):
        chances = teacher(batch.strong).softmax(1)[0].tolist()
        return sum(chance * student_loss_after(label) for label, chance in enumerate(chances))

    teacher = LinearStudent(seed=4)
    width, differences = 1e-6, torch.zeros_like(teacher.weight)
    for place in range(differences.numel()):
        up, down = LinearStudent(seed=4), LinearStudent(seed=4)
        with torch.no_grad():
            up.weight.view(-1)[place] += width
            down.weight.view(-1)[place] -= width
        differences.view(-1)[place] = (expected_loss(up) - expected_loss(down)) / (2 * width)

    chances = teacher(batch.strong).softmax(1)[0].tolist()
    mean_step = torch.zeros_like(differences)
    for label in range(CLASSES):
        monkeypatch.setattr(
            training_steps, "draw_pseudo_labels", lambda logits, how, label=label: torch.tensor([label])
        )
        mean_step += chances[label] * find_feedback_gradient(accelerator, batch)
    assert differences.abs().max() > 1e-4
    assert torch.allclose(mean_step, differences, atol=1e-6)


class LinearStudent(nn.Module):
    """A linear classifier in double precision, which has no state but its weight."""

    def __init__(self, seed=3):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(CLASSES, 12, generator=generator, dtype=torch.float64))

    def forward(self, images):
        return images.double().flatten(1) @ self.weight.T

    def loss(self, batch):
        return float(F.cross_entropy(self(batch.images), batch.labels).detach())

    def step(self, images, label):
        F.cross_entropy(self(images), torch.tensor([label])).backward()
        with torch.no_grad():
            self.weight -= 0.5 * self.weight.grad


def find_feedback_gradient(accelerator, batch):
    """Return what the feedback adds to the teacher's gradient in one step of the objective."""

    def learner(seed, rate):
        model = LinearStudent(seed)
        groups = [{"params": list(model.parameters()), "lr": rate, "weight_decay": 0.0}]
        settings = LearningSettings(rate=rate, momentum=0.0)
        return Learner(model, groups, settings, accelerator=accelerator, factor_at=lambda step: 1.0)

    teacher, student = learner(4, 1.0), learner(3, 0.5)
    objective = MplObjective(
        teacher, student, ConsistencySettings(weight=0.0), accelerator=accelerator, steps=10, finetune_rate=0.01
    )
    before = teacher.model.weight.detach().clone()
    objective.step(batch, 0)
    alone = LinearStudent(4)
    F.cross_entropy(alone(batch.images), batch.labels).backward()
    return before - teacher.model.weight.detach() - alone.weight.grad


def test_mpl_last_steps_fine_tune_the_averaged_student_on_labelled_images(accelerator):
    objective = make_mpl(accelerator, steps=3)
    for step in range(3):
        objective.step(make_batch(step), step)
    average = weights_of(objective.student, result=True).clone()
    teacher = weights_of(objective.teacher)
    expected = Recorded(0)
    expected.load_state_dict(objective.student.result.state_dict())
    batch = make_batch(3)
    F.cross_entropy(expected(batch.images), batch.labels).backward()
    objective.step(batch, 3)
    stepped = torch.cat([(value - 0.01 * value.grad).detach().flatten() for value in expected.parameters()])
    assert torch.allclose(weights_of(objective.learner, result=True), stepped, atol=1e-6)
    assert not stepped.equal(average)
    assert weights_of(objective.teacher).equal(teacher)


@pytest.mark.parametrize("stop", [2, 4], ids=["before fine-tuning", "in fine-tuning"])
def test_mpl_load_state_goes_on_exactly(accelerator, stop):
    whole, first = make_mpl(accelerator, steps=3), make_mpl(accelerator, steps=3)

    def step(objective, number):
        torch.manual_seed(number)  # as the loop does: labels are sampled
        objective.step(make_batch(number), number)

    for number in range(stop):
        step(whole, number)
        step(first, number)
    second = make_mpl(accelerator, steps=3)
    second.load_state(first.state())
    for number in range(stop, 6):
        step(whole, number)
        step(second, number)
    assert weights_of(second.learner, result=True).equal(weights_of(whole.learner, result=True))
    assert weights_of(second.teacher).equal(weights_of(whole.teacher))


def test_training_batch_need_names_what_is_missing():
    with pytest.raises(ValueError, match="weak: the batch has none"):
        TrainingBatch().need("weak")
