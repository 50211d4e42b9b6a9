"""The correctness gate: no contender is timed before it has agreed with the specification."""

import copy
import time

import torch

from .case import OURS, the_same

# Of the largest value of each tensor. The tests bound each kernel tighter; here a half-precision gradient has been
# through a whole critic, where plain PyTorch itself was up to 2.7 % off.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 4e-2, torch.bfloat16: 4e-2}


def clone(value, dtype=None):
    """A deep copy that shares no memory and no graph with ``value``, in ``dtype`` where one is given; labels stay."""
    if isinstance(value, torch.Tensor):
        dtype = dtype if value.is_floating_point() and dtype is not None else value.dtype
        return value.detach().clone().to(dtype).requires_grad_(value.requires_grad)
    if isinstance(value, torch.nn.Module):
        return copy.deepcopy(value).to(dtype=dtype)
    if isinstance(value, (tuple, list)):
        return type(value)(clone(item, dtype) for item in value)
    return value


def tensors(value):
    """Every tensor in ``value``, in order. None stands for a gradient that does not exist."""
    if value is None or isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, torch.nn.Module):
        return list(value.parameters())
    return [tensor for item in value for tensor in tensors(item)]


def outcome(run, inputs):
    result = run(*inputs)
    return inputs if result is None else result


def largest(tensor):
    """The largest absolute value; 0 for a gradient that does not exist, infinity for NaN."""
    return 0.0 if tensor is None else tensor.detach().double().abs().max().nan_to_num(float("inf")).item()


def norm(tensor):
    """‖tensor‖₂, with the same exceptions."""
    if tensor is None:
        return 0.0
    return torch.linalg.vector_norm(tensor.detach().double()).nan_to_num(float("inf")).item()


def distance(found, exact, measure=largest):
    """Of the difference. A gradient that does not exist is as good as zero."""
    if found is None or exact is None:
        return measure(exact if found is None else found)
    return measure(found.double() - exact.double())


def specified(case, reference, given, dtype, known):
    """What the reference says of these inputs, in float64 and in ``dtype``; kept in ``known`` where all are given the
    same.
    """
    if reference not in known or case.given is not the_same:
        known[reference] = tuple(tensors(outcome(reference, clone(given, to))) for to in (torch.float64, dtype))
    return known[reference]


def fault(case, run, inputs, reference=None, known=None):
    """Why ``run`` may not be timed on ``inputs``, in one line, or None. ``reference``: that of the case.

    Its error against the reference in float64 may be twice that of the reference at the precision of the inputs, or
    the tolerance of that precision, whichever is larger. ``inputs`` stay as they are.
    """
    dtype = tensors(inputs)[0].dtype
    answer = outcome(run, clone(inputs))
    given = (*case.given(answer, *inputs), *case.added(*inputs))
    exact, plain = specified(case, reference or case.reference, given, dtype, {} if known is None else known)
    answer = tensors(answer)
    if len(answer) != len(exact):
        return f"{len(answer)} tensors where the reference has {len(exact)}"
    scale = max((norm(truth) for truth in exact), default=0.0)
    for index, (found, truth, eager) in enumerate(zip(answer, exact, plain, strict=True)):
        if None not in (kind(found), kind(eager)) and kind(found) != kind(eager):
            return f"output {index} is {kind(found)} where the reference has {kind(eager)}"
        if case.tolerance is None:
            allowed = max(2 * distance(eager, truth), TOLERANCE[dtype] * largest(truth))
            error = distance(found, truth)
        else:  # a bias before BatchNorm has no gradient but the rounding errors of others
            allowed = max(case.tolerance, TOLERANCE[dtype]) * max(norm(truth), 1e-3 * scale)
            allowed = max(allowed, 2 * distance(eager, truth, norm))
            error = distance(found, truth, norm)
        if not error <= allowed:
            return f"output {index} is {error:.2g} away from the reference, {allowed:.2g} allowed"
    return None


def kind(tensor):
    return None if tensor is None else f"{tensor.dtype} of shape {list(tensor.shape)}"


def admit(case, contenders, inputs):
    """``{contender: seconds of its first call}`` for who may be timed · who is wrong, how · who cannot run, why.

    Ours has no excuse: where it cannot run, it is wrong.
    """
    fit, faults, skipped, known = {}, [], [], {}
    for contender in contenders:
        start = time.perf_counter()
        try:
            with contender.context():
                contender.run(*clone(inputs))
                first_call = time.perf_counter() - start
                reference = case.units[contender.name][1] if contender.role == "unit" else case.reference
                reason = fault(case, contender.run, inputs, reference, known)
        except Exception as error:  # whatever stops a contender is a result to report, not the end of the run
            reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
            if contender.name == OURS:
                faults.append({"contender": contender.name, "fault": reason})
            else:
                skipped.append({"contender": contender.name, "reason": reason})
            continue
        if reason:
            faults.append({"contender": contender.name, "fault": reason})
        fit[contender] = first_call
    return fit, faults, skipped
