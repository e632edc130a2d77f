"""Reading a sweep: tables, Pareto fronts, checklist, report and plots, without torch, ray or optuna."""
