"""Words that questions about letters and order are made of."""

_TABLE = """
apple banana bread butter cheese cherry coffee dinner egg garlic ginger honey lemon melon olive onion orange
pepper potato rice salad soup sugar tomato water bear bird camel cat cow dog duck eagle fish fox frog goat goose
horse lion monkey mouse otter panda pig rabbit sheep snake spider tiger turtle wolf zebra arm back bone ear elbow
eye face finger foot hair hand head heart knee leg neck nose shoulder skin stomach tooth bag ball basket bed bell
blanket book bottle bowl box bridge brush bucket candle car chair clock coat cup desk door drum fence flag fork
garden glass glove guitar hammer hat house jacket kettle key kitchen ladder lamp letter mirror needle paper pencil
piano picture pillow plate pocket radio ribbon ring road roof rope school scissors shirt shoe shovel soap sock
spoon stairs street table telephone towel tower train umbrella village violin wagon wall wheel window yarn
autumn cloud coast desert field flower forest grass hill island lake leaf meadow moon mountain night ocean pebble
rain river rose sand shadow sky snow spring star stone storm summer sunset thunder tree valley weather wind winter
"""
WORDS = tuple(_TABLE.split())
