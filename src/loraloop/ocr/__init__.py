"""OCR engines: images in, pages of text with word confidences out."""
