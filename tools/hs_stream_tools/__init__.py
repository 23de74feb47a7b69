"""The tool library of hs_stream: one module per family, all versions of a tool side by side.

====================  =============================================================================================
`generators`          clock
`basics`              copy, jsonify, product
`random_generators`   random, uniform, triangular, randint, randrange, custom
`distributions`       gauss, normalvariate, lognormvariate, expovariate, gammavariate, betavariate, paretovariate,
                      weibullvariate, vonmisesvariate
`dicts`               component, component_filter
`objects`             component_set, dict_argmax, dict_values_to_const
`lists`               slice, list_length, list_sum, list_mean, list_dict_sum, list_dict_mean
`summaries`           histogram_from_list, percentiles_from_list
`functions`           apply, expression
`aggregates`          aggregate
`plate_aggregates`    aggregate_plate, aggregate_into_dict_and_apply, histograms_to_csv, percentiles_to_csv
`joins`               aligned_merge, as_of_join, last_value
`signals`             derivative, integral, ewma
`states`              threshold, debounce
`windows`             sliding_mean, _sum, _min, _max, _count, _median, _percentile, _std, _first, _last
`periods`             version 2 of these, and sliding_change: also of periods of the calendar, and of what lasts
`window_streams`      sliding_window, aligning_window
`over_windows`        sliding_apply, sliding_listify, sliding_sink, relative_window
`relative`            relative_apply, relative_apply2
`grids`               resample, interpolate
`gaps`                gap_detect, offline_detect, session_window
`metering`            utility_meter, increase
`smart_home`          change_detect, state_duration, outlier_filter
`datasets`            minibatch, minibatch_by_time, dataset
`learning`            learn_classifier, learn_model, predict, anomaly_score, cluster (these two modules need
                      ``hs_stream[learning]``, but for the minibatches)
====================  =============================================================================================

What holds for all of them:

1. A number is a float, an int or a bool (as 0 or 1). Arithmetic is in 64-bit floats.
2. ``None`` and NaN are *missing*: tools that compute with numbers ignore a missing value as if there were no instance
   (``apply`` passes both on to its function; ``expression`` has no result for ``None`` and computes with NaN).
3. A value of another type than a tool wants raises ``TypeError`` that says what came; nothing is skipped silently.
"""
