"""UNet against transformer: trained for as long, with as many parameters, judged alike (`python -m bench.families`)."""
