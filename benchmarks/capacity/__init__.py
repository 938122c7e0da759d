"""What a whole grid costs on 1 to 512 GPUs: the planner's arithmetic, the simulated queue, and rates measured on the host."""
