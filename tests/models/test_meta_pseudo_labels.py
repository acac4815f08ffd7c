"""MPL: the teacher's gradient is that of the student's labelled loss, in expectation over sampled pseudo labels."""

import pytest
import torch
from torch.nn import functional as F

from labelmill.models.meta_pseudo_labels import (
    FeedbackBaseline,
    draw_pseudo_labels,
    find_feedback,
    find_feedback_loss,
)
from labelmill.schemas.errors import BadInput

RATE = 0.7


class OneImage:
    """A linear teacher and student of four features and three classes, one unlabelled image, three labelled ones."""

    def __init__(self, seed):
        generator = torch.Generator().manual_seed(seed)
        make = {"generator": generator, "dtype": torch.float64}
        self.image = torch.randn(1, 4, **make)
        self.labelled, self.labels = torch.randn(3, 4, **make), torch.tensor([0, 2, 1])
        self.teacher, self.student = torch.randn(3, 4, **make), torch.randn(3, 4, **make)

    def teacher_logits(self, teacher):
        return self.image @ teacher.T

    def loss(self, student):
        return F.cross_entropy(self.labelled @ student.T, self.labels)

    def step(self, pseudo_label):
        student = self.student.clone().requires_grad_()
        F.cross_entropy(self.image @ student.T, torch.tensor([pseudo_label])).backward()
        return (student - RATE * student.grad).detach()

    def expected_loss(self, teacher):
        chances = self.teacher_logits(teacher).softmax(1)[0]
        return sum(chance * self.loss(self.step(label)) for label, chance in enumerate(chances))

    def finite_differences(self):
        width, found = 1e-5, torch.zeros_like(self.teacher)
        for place in range(self.teacher.numel()):
            change = torch.zeros_like(self.teacher)
            change.view(-1)[place] = width
            up, down = self.expected_loss(self.teacher + change), self.expected_loss(self.teacher - change)
            found.view(-1)[place] = (up - down) / (2 * width)
        return found

    def expected_gradient(self, baseline=0.0):
        total = torch.zeros_like(self.teacher)
        for label in range(3):
            teacher = self.teacher.clone().requires_grad_()
            logits = self.teacher_logits(teacher)
            feedback = find_feedback(self.loss(self.student), self.loss(self.step(label))) - baseline
            find_feedback_loss(logits, torch.tensor([label]), feedback).backward()
            total += float(logits.softmax(1)[0, label].detach()) * teacher.grad
        return total


@pytest.mark.parametrize("seed", range(5))
def test_find_feedback_loss_gradient_is_that_of_the_student_s_loss_in_expectation(seed):
    case = OneImage(seed)
    expected = case.finite_differences()
    assert expected.abs().max() > 1e-3
    assert torch.allclose(case.expected_gradient(), expected, atol=1e-8)


def test_find_feedback_loss_baseline_changes_nothing_in_expectation():
    case = OneImage(0)
    assert torch.allclose(case.expected_gradient(baseline=0.3), case.expected_gradient(), atol=1e-12)


def test_find_feedback_loss_argmax_label_has_a_true_difference_of_zero():
    case = OneImage(1)
    width, label = 1e-4, int(case.teacher_logits(case.teacher).argmax())
    moved = case.teacher + width * torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    assert int(case.teacher_logits(moved).argmax()) == label  # so the student's step is the same, and so is its loss


def test_find_feedback_loss_soft_labels_would_give_no_gradient_and_are_refused():
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    soft = logits.detach().softmax(1)
    (2.5 * F.cross_entropy(logits, soft)).backward()
    assert logits.grad.abs().max() < 1e-7  # softmax(logits) - soft
    with pytest.raises(BadInput, match="soft ones give the teacher no gradient"):
        find_feedback_loss(logits, soft, 1.0)


def test_find_feedback_is_positive_when_the_labels_helped():
    assert find_feedback(torch.tensor(2.0), torch.tensor(1.5)) == 0.5


def test_find_feedback_loss_label_that_helped_becomes_likelier():
    logits = torch.zeros(1, 3, requires_grad=True)
    find_feedback_loss(logits, torch.tensor([1]), 0.5).backward()
    stepped = (logits - logits.grad).softmax(1)[0].tolist()
    assert stepped[1] > 1 / 3 > stepped[0]


def test_feedback_baseline_starts_at_zero_and_follows():
    baseline = FeedbackBaseline(momentum=0.9)
    assert baseline.take_off(1.0) == 1.0
    assert baseline.take_off(1.0) == pytest.approx(0.9)
    assert baseline.take_off(0.0) == pytest.approx(-0.19)


def test_draw_pseudo_labels_are_drawn_as_the_teacher_believes_and_carry_no_gradient():
    logits = torch.tensor([0.6, 0.3, 0.1]).log().expand(20_000, 3).requires_grad_()
    labels = draw_pseudo_labels(logits, generator=torch.Generator().manual_seed(0))
    assert not labels.requires_grad
    shares = torch.bincount(labels, minlength=3) / len(labels)
    assert torch.allclose(shares, torch.tensor([0.6, 0.3, 0.1]), atol=0.02)
    assert draw_pseudo_labels(logits, how="argmax").unique().tolist() == [0]
