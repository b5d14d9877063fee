"""The showroom: pins rendered from product cut-outs and panoramas, so that every truth about them is known.

`plan` decides what each pin shows, `render` makes it; both are pure functions of the seed. What is true
and what is made up about these pins stands in docs/reference/data-card.md.
"""
