"""What chapter 1's scores say, in words."""


def readings(rows: dict[str, dict[str, float]], usage: dict[str, float], codebook_size: int) -> list[str]:
    """One line per question a reader has about the table."""
    model, copied = rows["tokenizer"], rows["copy last frame"]
    gain = model["moving_psnr_db"] - copied["moving_psnr_db"]
    recall, found = model["foreground_recall"], model["object_recall"]
    lines = [
        f"moving pixels: {gain:+.1f} dB against repeating the last frame: "
        + (
            "what moves is drawn"
            if gain > 6
            else "what moves is drawn roughly"
            if gain > 2
            else "hardly better than a copy; train longer"
        ),
        f"foreground: {recall:.0%} of the pixels that differ from the background are there"
        + ("" if recall >= 0.9 else "; below 90 % means lost objects: try a smaller patch or a higher --foreground-weight"),
    ]
    if found == found:  # NaN where the game has no known ball
        lines.append(f"ball: there in {found:.1%} of the frames that show one; plain PSNR hardly notices when it is lost")
    if not codebook_size:
        return [*lines, "codes: not quantized, so there are no tokens to count"]
    share_used = usage["codes_used"] / codebook_size
    lines.append(
        f"codes: {usage['codes_used']:,} of {codebook_size:,} used, as varied as {usage['perplexity']:.0f} evenly used ones"
        + ("; under a tenth are used: the codebook is larger than the data need" if share_used < 0.1 else "")
    )
    return lines
