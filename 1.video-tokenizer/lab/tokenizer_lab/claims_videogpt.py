"""What VideoGPT's paper claims about its tokenizer (arXiv:2104.10157), as experiments of minutes on one CPU core.

Its measure is NMSE, the mean squared error over the variance of the data. On the same validation frames that is the PSNR on
another scale: NMSE = 10^(-PSNR / 10) / variance, so an NMSE lower by 20 % is a PSNR higher by 10 log10(1 / 0.8) = 0.97 dB.
"""

from tokenizer_lab.claims import Experiment

SHOWN = ("psnr_db", "moving_psnr_db", "foreground_recall", "codes_used", "perplexity")

EXPERIMENTS = [
    Experiment(
        name="videogpt-collapse",
        claim="Codes that start on data and restart when idle are used more evenly: at least 5 times the perplexity of neither.",
        source="VideoGPT, section 2.4: said in words, without numbers",
        arms={
            "neither": "--model videogpt --no-data-start --restart-below 0",
            "data-start": "--model videogpt --restart-below 0",
            "data-start-and-restarts": "--model videogpt",
        },
        metric="perplexity",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="videogpt-normalised-loss",
        claim="Without division by the variance the commitment outweighs the reconstruction: lower PSNR, fewer codes.",
        source="VideoGPT, section 2.4: said in words, without numbers",
        arms={"raw-error": "--model videogpt --no-normalise-loss", "error-over-variance": "--model videogpt"},
        metric="psnr_db",
        direction="rises",
        also_shown=SHOWN,
    ),
    Experiment(
        name="videogpt-axial-attention",
        claim="Axial attention reconstructs better than convolutions alone with the same number of parameters.",
        source="VideoGPT, table 2.3: NMSE 0.0041 without, 0.0033 with (-20 %); R-FVD 15.3 and 14.9; BAIR, 16 x 64 x 64 pixels",
        arms={
            "convolutions-only": "--model videogpt --axial-attention off",
            "axial-attention": "--model videogpt --axial-attention on",
        },
        metric="psnr_db",
        direction="rises",
        also_shown=(*SHOWN, "parameters"),
    ),
    Experiment(
        name="videogpt-codebook-size",
        claim="More codes reconstruct better.",
        source="VideoGPT, table 2.6: R-FVD 18.2, 14.9, 11.3 with 256, 1,024, 4,096 codes; samples no better (FVD 104); BAIR",
        # one threshold for all arms, low enough for the largest codebook: 2,048 latents a step are 2 for each of 1,024 codes
        arms={f"{number}-codes": f"--model videogpt --num-codes {number} --restart-below 0.5" for number in (64, 256, 1024)},
        metric="psnr_db",
        direction="rises",
        also_shown=SHOWN,
    ),
]
