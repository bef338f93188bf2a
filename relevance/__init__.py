"""The core: data, models, how they are made and how they are judged."""
