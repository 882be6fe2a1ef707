"""What changes the weights: hyperparameters, optimizers, learning-rate schedules."""
