"""What trains any network: learner, batches, optimiser, schedule, steps that are not finite."""
