"""Planted bugs in what keeps a request from costing too much."""

from tests.mutants.mutant import Mutant

_IN_RANGE = "test_model.py::test_layers_that_do_not_fit_are_refused"
_WORK = "test_request.py::test_the_work_of_a_ballot_is_limited"
LIMITS = (
    Mutant(
        bug="padding takes no memory",
        file="layers.py",
        old="return max(shape[0] * height * width, count_unfolded(layer, shape))",
        new="return count_unfolded(layer, shape)",
        killed_by=(
            "test_layers.py::test_the_largest_array_is_the_padded_image_or_what_its_windows_hold",
        ),
    ),
    Mutant(
        bug="pooling along the height costs nothing",
        file="layers.py",
        old="(kernel[0] * shape[2] + kernel[1] * width)",
        new="(kernel[1] * width)",
        killed_by=("test_layers.py::test_operations_are_those_of_all_windows",),
    ),
    Mutant(
        bug="a sample may take any number of operations",
        file="model.py",
        old="if operations > MAX_OPERATIONS:",
        new="if operations < 0:",
        killed_by=(_IN_RANGE,),
    ),
    Mutant(
        bug="the fields of a description are not checked",
        file="model.py",
        old="    _validate_fields(model)\n    last",
        new="    last",
        killed_by=(_IN_RANGE,),
    ),
    Mutant(
        bug="a round evaluates its candidates only",
        file="request.py",
        old="1 + sellers_per_round + len(body.step.lengths_q16)",
        new="sellers_per_round",
        killed_by=(_WORK,),
    ),
    Mutant(
        bug="a final evaluation is work for one model",
        file="request.py",
        old='("final_count", 2,',
        new='("final_count", 1,',
        killed_by=(_WORK,),
    ),
    Mutant(
        bug="a nest in a request is an error of Python's",
        file="request.py",
        old="(msgspec.MsgspecError, UnicodeDecodeError, RecursionError)",
        new="(msgspec.MsgspecError, UnicodeDecodeError)",
        killed_by=("test_request.py::test_a_nest_before_a_layers_tag_is_no_request",),
    ),
)
