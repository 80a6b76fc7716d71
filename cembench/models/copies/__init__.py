"""Copies of a frozen network that attacks and samplers follow: folded, fused, in bfloat16."""
