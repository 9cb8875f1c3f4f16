"""Planted bugs on the way from updates to the next model and the next sampler."""

from tests.mutants.mutant import Mutant

ARITHMETIC = (
    Mutant(
        bug="an update is quantised half up",
        file="update.py",
        old="np.rint(values.astype(np.float64) * (1 << FRACTION_BITS))",
        new="np.floor(values.astype(np.float64) * (1 << FRACTION_BITS) + 0.5)",
        killed_by=("test_update.py::test_quantise_gives_the_recorded_values",),
    ),
    Mutant(
        bug="a quantised update is not clipped",
        file="update.py",
        old="clipped: Float64 = np.clip(scaled, -MAX_UPDATE, MAX_UPDATE)",
        new="clipped: Float64 = scaled",
        killed_by=("test_update.py::test_quantise_gives_the_recorded_values",),
    ),
    Mutant(
        bug="parameters are not clipped when an update is applied",
        file="update.py",
        old="return np.clip(applied, -MAX_PARAMETER, MAX_PARAMETER, out=applied)",
        new="return applied",
        killed_by=("test_update.py::test_applying_an_update_clips_at_the_parameters_bound",),
    ),
    Mutant(
        bug="tensors are little-endian",
        file="update.py",
        old='values.astype(">i4").data',
        new='values.astype("<i4").data',
        killed_by=("test_update.py::test_tensor_bytes_and_digest_are_the_recorded_ones",),
    ),
    Mutant(
        bug="the median of an even number is the larger middle value",
        file="fixed_point.py",
        old="ordered[(len(ordered) - 1) // 2]",
        new="ordered[len(ordered) // 2]",
        killed_by=(
            "test_fixed_point.py::test_lower_median_takes_the_smaller_of_two_middle_values",
        ),
    ),
    Mutant(
        bug="an exponential forgets its last bit",
        file="fixed_point.py",
        old="if fraction >> (32 - i) & 1:",
        new="if fraction >> (32 - i) & 1 and i < 32:",
        killed_by=("test_fixed_point.py::test_exp2_gives_the_recorded_values",),
    ),
    Mutant(
        bug="a logarithm forgets its last bit",
        file="fixed_point.py",
        old="for i in range(1, 17):",
        new="for i in range(1, 16):",
        killed_by=("test_fixed_point.py::test_log2_16_gives_the_recorded_values",),
    ),
    Mutant(
        bug="the mean of updates is rounded down",
        file="linear_algebra.py",
        old="(2 * total.astype(np.int64) + count) // (2 * count)",
        new="total.astype(np.int64) // count",
        killed_by=("test_krum.py::test_krum_gives_the_recorded_step",),
    ),
    Mutant(
        bug="a scaled coordinate is truncated, not floored",
        file="linear_algebra.py",
        old="np.floor(out, out=out)",
        new="np.trunc(out, out=out)",
        killed_by=("test_gate.py::test_the_gate_keeps_the_recorded_sellers",),
    ),
)

GATE = (
    Mutant(
        bug="the norm band ends before four times the median norm",
        file="gate.py",
        old="norm > NORM_BAND_SQUARED * median",
        new="norm >= NORM_BAND_SQUARED * median",
        killed_by=(
            "test_gate.py::test_the_band_reaches_from_a_quarter_to_four_times_the_median_norm",
        ),
    ),
    Mutant(
        bug="an update is compared with copies that were rejected",
        file="gate.py",
        old=">= median for i in kept)",
        new=">= median for i in range(j))",
        killed_by=(
            "test_gate.py"
            "::test_a_duplicate_of_a_rejected_duplicate_stays_if_it_is_far_from_the_first",
        ),
    ),
    Mutant(
        bug="the gate takes updates in the order of arrival",
        file="gate.py",
        old="for index in sorted(updates)}",
        new="for index in updates}",
        killed_by=("test_gate.py::test_the_gate_does_not_depend_on_the_order_of_arrival",),
    ),
    Mutant(
        bug="an update is compared with a direction that it is part of",
        file="gate.py",
        old="            product -= norm\n",
        new="",
        killed_by=("test_gate.py::test_orthogonal_and_reversed_updates_are_rejected",),
    ),
    Mutant(
        bug="a reversed update has the direction of the others",
        file="gate.py",
        old="if product > 0 and MIN_COSINE",
        new="if MIN_COSINE",
        killed_by=("test_gate.py::test_orthogonal_and_reversed_updates_are_rejected",),
    ),
    Mutant(
        bug="of equally useful updates the last give the direction",
        file="gate.py",
        old="(-utilities[candidates.indices[position]], position)",
        new="(-utilities[candidates.indices[position]], -position)",
        killed_by=(
            "test_small_cases.py::test_of_equally_useful_updates_the_first_give_the_direction",
        ),
    ),
    Mutant(
        bug="the worst updates give the direction",
        file="gate.py",
        old="(-utilities[candidates.indices[position]], position)",
        new="(utilities[candidates.indices[position]], position)",
        killed_by=("test_small_cases.py::test_the_updates_of_most_use_give_the_direction",),
    ),
)

KRUM = (
    Mutant(
        bug="an update has n - f - 1 neighbours",
        file="krum.py",
        old="max(1, count - tolerated - 2)",
        new="max(1, count - tolerated - 1)",
        killed_by=("test_krum.py::test_krum_gives_the_recorded_step",),
    ),
    Mutant(
        bug="an update is its own neighbour",
        file="krum.py",
        old="for j in range(count) if j != i)",
        new="for j in range(count))",
        killed_by=("test_krum.py::test_krum_gives_the_recorded_step",),
    ),
    Mutant(
        bug="distances are added unsquared",
        file="krum.py",
        old="sum(sorted(row[j] for j",
        new="sum(sorted(int(row[j] ** 0.5) for j",
        killed_by=("test_krum.py::test_krum_gives_the_recorded_step",),
    ),
    Mutant(
        bug="of equal scores the larger index is better",
        file="krum.py",
        old="sorted(zip(scores, indices, strict=True))",
        new="sorted(zip(scores, indices, strict=True), key=lambda pair: (pair[0], -pair[1]))",
        killed_by=("test_krum.py::test_equal_scores_are_decided_by_the_smaller_index",),
    ),
    Mutant(
        bug="fewer than 2f + 3 updates tolerate f",
        file="krum.py",
        old="min(byzantine_count, (count - 3) // 2)",
        new="min(byzantine_count, (count - 2) // 2)",
        killed_by=("test_krum.py::test_small_rounds_lower_the_tolerated_number",),
    ),
    Mutant(
        bug="the medoid is the accepted update farthest from the mean",
        file="krum.py",
        old="away.index(min(away))",
        new="away.index(max(away))",
        killed_by=("test_krum.py::test_krum_gives_the_recorded_step",),
    ),
)

OSMD = (
    Mutant(
        bug="utilities are not centred",
        file="osmd.py",
        old="(utilities[index] - centre)",
        new="utilities[index]",
        killed_by=("test_osmd.py::test_osmd_gives_the_recorded_states",),
    ),
    Mutant(
        bug="a better utility lowers the weight",
        file="osmd.py",
        old="gain = rules.eta_q16 *",
        new="gain = -rules.eta_q16 *",
        killed_by=("test_osmd.py::test_osmd_gives_the_recorded_states",),
    ),
    Mutant(
        bug="a step is not clipped",
        file="osmd.py",
        old="log_step = max(-MAX_LOG_STEP_Q32, min(log_step, MAX_LOG_STEP_Q32))",
        new="log_step = max(-(40 << 32), min(log_step, 40 << 32))",
        killed_by=(
            "test_osmd.py"
            "::test_a_better_seller_gains_and_a_worse_one_loses_at_most_a_factor_of_two",
        ),
    ),
    Mutant(
        bug="missing sellers keep their weight",
        file="osmd.py",
        old="for index in sorted(missing):",
        new="for index in ():",
        killed_by=("test_osmd.py::test_osmd_gives_the_recorded_states",),
    ),
    Mutant(
        bug="an inclusion weight can exceed one",
        file="osmd.py",
        old="max(low, min((weight * factor) >> 96, high))",
        new="max(low, (weight * factor) >> 96)",
        killed_by=("test_osmd.py::test_the_sum_and_the_bounds_survive_any_update",),
    ),
    Mutant(
        bug="an inclusion weight can fall to nothing",
        file="osmd.py",
        old="max(low, min((weight * factor) >> 96, high))",
        new="min((weight * factor) >> 96, high)",
        killed_by=("test_osmd.py::test_the_sum_and_the_bounds_survive_any_update",),
    ),
    Mutant(
        bug="what rounding leaves goes to the last sellers",
        file="osmd.py",
        old="        for index in range(count):\n            if remainder and",
        new="        for index in reversed(range(count)):\n            if remainder and",
        killed_by=(
            "test_small_cases.py"
            "::test_units_that_rounding_leaves_go_to_the_first_sellers_below_the_cap",
        ),
    ),
    Mutant(
        bug="the first weights leave their remainder to the last sellers",
        file="osmd.py",
        old="share + (index < remainder)",
        new="share + (index >= seller_count - remainder)",
        killed_by=("test_osmd.py::test_osmd_gives_the_recorded_states",),
    ),
    Mutant(
        bug="sampling has no random offset",
        file="osmd.py",
        old="offset = stream.below(ONE_Q30)",
        new="offset = 0",
        killed_by=(
            "test_osmd.py::test_sellers_are_sampled_as_often_as_their_inclusion_weight_says",
        ),
    ),
    Mutant(
        bug="sampled sellers are in the order of the draw",
        file="osmd.py",
        old="return tuple(sorted(chosen))",
        new="return tuple(chosen)",
        killed_by=("test_osmd.py::test_osmd_gives_the_recorded_states",),
    ),
)

ROUND = (
    Mutant(
        bug="the worst updates are kept",
        file="aggregation.py",
        old="key=lambda index: (-utilities[index], index)",
        new="key=lambda index: (utilities[index], index)",
        killed_by=("test_aggregation.py::test_a_round_of_ten_keeps_seven_and_accepts_six",),
    ),
    Mutant(
        bug="five updates are trusted without exception",
        file="aggregation.py",
        old="byzantine_count = max(1, byzantine_count)",
        new="byzantine_count = max(0, byzantine_count)",
        killed_by=("test_aggregation.py::test_a_round_of_ten_keeps_seven_and_accepts_six",),
    ),
    Mutant(
        bug="a rejected seller keeps its weight",
        file="aggregation.py",
        old="for index in inputs.sampled if index not in utilities],",
        new="for index in inputs.sampled if index not in inputs.updates],",
        killed_by=("test_aggregation.py::test_missing_and_rejected_sellers_are_marked_and_halved",),
    ),
    Mutant(
        bug="a seller is removed after four misses",
        file="aggregation.py",
        old="if count + (index in absent) >= MISSES_MAX",
        new="if count + (index in absent) > MISSES_MAX",
        killed_by=("test_aggregation.py::test_the_third_miss_holds_a_seller_at_the_floor",),
    ),
    Mutant(
        bug="distances of the largest models have eight bytes",
        file="digest.py",
        old="width = 8 if parameter_count <= INT64_DISTANCE_PARAMETERS else 16",
        new="width = 8",
        killed_by=("test_digest.py::test_distances_of_large_models_take_sixteen_bytes",),
    ),
    Mutant(
        bug="a model of 2**21 parameters is a large one",
        file="digest.py",
        old="parameter_count <= INT64_DISTANCE_PARAMETERS",
        new="parameter_count < INT64_DISTANCE_PARAMETERS",
        killed_by=("test_digest.py::test_distances_of_large_models_take_sixteen_bytes",),
    ),
)

STEP = (
    Mutant(
        bug="a scaled step is rounded down",
        file="step.py",
        old="scaled += ONE_STEP // 2",
        new="scaled += 0",
        killed_by=("test_step.py::test_steps_are_the_recorded_ones",),
    ),
    Mutant(
        bug="a step is not held to an update's bound",
        file="step.py",
        old="np.clip(step, -MAX_UPDATE, MAX_UPDATE, out=step)",
        new="step",
        killed_by=("test_step.py::test_steps_are_the_recorded_ones",),
    ),
    Mutant(
        bug="momentum is lost",
        file="step.py",
        old="step += carried",
        new="pass",
        killed_by=("test_step.py::test_steps_are_the_recorded_ones",),
    ),
    Mutant(
        bug="momentum adds up over the lengths",
        file="step.py",
        old="step += carried",
        new="step += carried; carried += carried",
        killed_by=("test_step.py::test_steps_are_the_recorded_ones",),
    ),
    Mutant(
        bug="momentum points back",
        file="aggregation.py",
        old="else start - previous",
        new="else previous - start",
        killed_by=("test_step.py::test_momentum_adds_a_part_of_the_last_step",),
    ),
    Mutant(
        bug="the model before the last round is forgotten",
        file="round.py",
        old="previous_parameters=work.before.previous_parameters,",
        new="previous_parameters=None,",
        killed_by=(
            "test_round.py::test_momentum_takes_the_parameters_before_the_last_decided_round",
        ),
    ),
    Mutant(
        bug="the worst of several steps is taken",
        file="aggregation.py",
        old="best = utilities.index(max(utilities))",
        new="best = utilities.index(min(utilities))",
        killed_by=(
            "test_step.py::test_of_several_lengths_the_best_on_the_rounds_samples_is_taken",
        ),
    ),
    Mutant(
        bug="of equally good steps the last is taken",
        file="aggregation.py",
        old="best = utilities.index(max(utilities))",
        new="best = max(range(len(models)), key=lambda i: (utilities[i], i))",
        killed_by=("test_step.py::test_of_equally_good_lengths_the_first_is_taken",),
    ),
    Mutant(
        bug="a round that accepts nobody goes on by momentum",
        file="aggregation.py",
        old="models = [start]\n    if aggregate is not None:",
        new="aggregate = start * 0 if aggregate is None else aggregate\n    if True:",
        killed_by=(
            "test_step.py::test_a_round_that_accepts_nobody_moves_nothing_whatever_the_momentum",
        ),
    ),
    Mutant(
        bug="the learning rate does not fall",
        file="request.py",
        old="numerator: int = training.rate_decay_ppm**round_index",
        new="numerator: int = PPM**round_index",
        killed_by=("test_step.py::test_rates_are_the_recorded_ones",),
    ),
    Mutant(
        bug="a learning rate falls to nothing",
        file="request.py",
        old="return max(1, 1000 *",
        new="return max(0, 1000 *",
        killed_by=("test_step.py::test_rates_are_the_recorded_ones",),
    ),
    Mutant(
        bug="a request without a schedule gets another hash",
        file="request.py",
        old="fields[_TRAINING] = _trim(body.training)",
        new="fields[_TRAINING] = body.training",
        killed_by=(
            "test_request.py::"
            "test_a_request_that_asks_for_no_schedule_is_encoded_as_it_was_before_there_was_one",
        ),
    ),
    Mutant(
        bug="step lengths cost no evaluation",
        file="request.py",
        old="1 + sellers_per_round + len(body.step.lengths_q16)",
        new="2 + sellers_per_round",
        killed_by=("test_request.py::test_every_step_length_is_one_evaluation_more",),
    ),
    Mutant(
        bug="a step length may stand in a request twice",
        file="request.py",
        old="if len(set(body.step.lengths_q16)) < len(body.step.lengths_q16):",
        new="if len(set(body.step.lengths_q16)) < 1:",
        killed_by=("test_request.py::test_bytes_of_a_step_with_the_same_length_twice_are_refused",),
    ),
)

EVALUATION = (
    Mutant(
        bug="weights are rounded down",
        file="operations.py",
        old="rounded = (parameters + 128) >> 8",
        new="rounded = parameters >> 8",
        killed_by=("test_evaluation.py::test_the_recorded_network_gives_the_recorded_logits",),
    ),
    Mutant(
        bug="a bias has another scale than the products",
        file="operations.py",
        old="return q12 * INPUT_SCALE, q20 * INPUT_SCALE",
        new="return q12 * INPUT_SCALE, q20",
        killed_by=("test_evaluation.py::test_logistic_regression_by_hand",),
    ),
    Mutant(
        bug="a negative mean is truncated",
        file="operations.py",
        old="return np.floor(values, out=values)",
        new="return np.trunc(values, out=values)",
        killed_by=("test_evaluation.py::test_a_negative_mean_is_rounded_down_too",),
    ),
    Mutant(
        bug="an image is padded with ones",
        file="operations.py",
        old="padded = np.zeros(",
        new="padded = np.ones(",
        killed_by=("test_evaluation.py::test_padding_is_zeros_and_strides_skip",),
    ),
    Mutant(
        bug="hidden values keep all their bits",
        file="operations.py",
        old="shift = activation.bits - HIDDEN_BITS",
        new="shift = activation.bits - LOGIT_BITS",
        killed_by=("test_evaluation.py::test_the_recorded_network_gives_the_recorded_logits",),
    ),
    Mutant(
        bug="the bound of a mean forgets that it adds a window",
        file="bounds.py",
        old="return before, prod(kernel) * before.magnitude",
        new="return before, before.magnitude",
        killed_by=("test_bounds.py::test_a_mean_counts_its_whole_window_before_it_divides",),
    ),
    Mutant(
        bug="of equal logits the last class is predicted",
        file="metrics.py",
        old="np.argmax(logits, axis=-1).astype(np.int64)",
        new="(logits.shape[-1] - 1 - np.argmax(logits[..., ::-1], axis=-1)).astype(np.int64)",
        killed_by=("test_metrics.py::test_the_smaller_class_wins_a_tie",),
    ),
    Mutant(
        bug="the cross-entropy of a sample has no end",
        file="metrics.py",
        old="np.minimum(loss, MAX_CROSS_ENTROPY_BITS << 16)",
        new="loss",
        killed_by=("test_metrics.py::test_cross_entropy_follows_the_rule_without_overflow",),
    ),
)
