"""From a `StepPlan` to a `StepResult`: tensors, the model's forward pass, and the choice of tokens."""
