"""Models: encoders, decoders and readouts around an attention. Pure torch.

Shapes as in `attnlab.attention`, and: N rows (batch, or batch x candidates, or hypotheses of a search), E embedding
width, H recurrent width, L recurrent layers, R readout width, V vocabulary.
"""
