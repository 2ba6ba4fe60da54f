"""VideoGPT's prior as a dynamics model: every token is predicted from all tokens before it."""
