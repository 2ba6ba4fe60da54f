"""The likelihood of a frozen video model as a reward (VIPER, arXiv:2305.14343)."""
