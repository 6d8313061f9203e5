"""Pages and pictures made of the results of an evaluation."""
