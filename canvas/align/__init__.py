"""Reinforcement learning of a denoiser: images sampled from it, rewards of them, and a LoRA that earns more."""
