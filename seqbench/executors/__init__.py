"""Ways to run trials. Each calls ``supervise.run_trial_supervised`` for every trial."""
