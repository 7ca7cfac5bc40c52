"""What the generated instructions are about. Those of the held-out split are never used in the training split."""

from __future__ import annotations

from typing import NamedTuple


class Topic(NamedTuple):
    """A noun phrase and lowercase words that a text about it could well use."""

    name: str
    words: tuple[str, ...]


def _topics(table: str) -> tuple[Topic, ...]:
    rows = (row.partition(":") for row in table.strip().splitlines())
    return tuple(Topic(name.strip(), tuple(words.split())) for name, _, words in rows)


TRAIN_TOPICS = _topics("""
the sea: water waves salt blue fish
a rainy day: umbrella wet clouds puddle drops
a birthday party: cake candles friends gifts music
baking bread: oven flour dough warm kitchen
riding a bicycle: wheels road speed helmet balance
a lost dog: home park collar search happy
learning to swim: pool water arms breath teacher
the moon: night light round sky tides
a trip to the zoo: animals lions cages children visit
growing tomatoes: garden sun water red plants
a busy market: people fruit prices noise stalls
a quiet library: books shelves silence reading desk
cooking dinner: pan food family table hot
a train journey: window station seat ticket tracks
the first day of school: teacher class bag friends nervous
a winter morning: snow cold coat frost breath
a summer evening: warm sunset garden light friends
true friendship: trust laugh help listen kind
a small village: church square houses quiet neighbours
playing football: ball goal team field kick
a cup of tea: hot leaves milk sugar cup
painting a picture: brush colours paper paint art
a long walk: shoes path trees fresh legs
a thunderstorm: rain lightning dark loud wind
the night sky: stars moon dark telescope planets
a visit to the doctor: waiting health nurse medicine ill
washing the car: soap water bucket shine sponge
a broken window: glass ball wall accident repair
an old clock: time hands wall tick hour
a new classmate: desk hello shy name friendly
moving to a new house: boxes rooms keys furniture garden
a camping trip: tent fire forest sleep stars
making soup: pot vegetables salt spoon hot
a farm in spring: lambs fields mud tractor green
fishing on a lake: boat fish rod patience water
a day without electricity: dark candles phone cold quiet
the city at night: lights cars streets noise people
a garden in autumn: leaves brown rake trees wind
a surprise visit: door guest smile coffee talk
learning a language: words practice speak listen grammar
a school play: stage actors costume applause lines
building a sandcastle: beach tower bucket waves sand
getting up early: alarm morning sleep sun coffee
a job interview: questions work suit answer nervous
taking care of a cat: food sleep fur play clean
saving money: bank coins budget plan spend
doing homework: desk pencil school book finish
a walk in the forest: trees birds path leaves quiet
a train station: platform people clock bags wait
a village dance: music band shoes summer evening
an empty house: dust rooms door silence stairs
a rainbow: colours rain sun arc sky
eating breakfast: egg bread juice table morning
working from home: computer desk quiet coffee meetings
a family holiday: car parents hotel sun suitcase
planting a tree: hole soil roots water shade
a snowman: carrot hat snow cold children
a football match: fans goal team score stadium
a healthy meal: vegetables fruit water plate fresh
a day at the beach: sand sun swim towel waves
""")

HELDOUT_TOPICS = _topics("""
a mountain hike: peak boots view steep backpack
a music lesson: piano notes practice teacher song
an apple orchard: trees fruit harvest basket sweet
a power cut: candles dark fridge wait battery
a ferry crossing: boat deck harbour wind waves
a chess game: king board moves think win
feeding the ducks: pond bread feathers children water
a wedding: rings dance dress cake guests
sewing a dress: needle thread cloth pattern scissors
an ice cream shop: flavours cone cold queue summer
a foggy morning: mist grey slow lamps road
a lighthouse: light ships rocks tower coast
a traffic jam: cars horn wait road late
an old castle: tower walls king stone gate
a picnic by the river: blanket sandwich grass ants shade
the desert: sand heat dry camel dunes
a pet parrot: feathers talk cage seeds green
a bus ride: seat driver ticket window stop
a good night's sleep: bed pillow dreams dark rest
a parcel in the mail: stamp paper string surprise box
a volcano: lava ash mountain smoke heat
a treasure map: island gold cross dig paper
""")

TRAIN_THINGS = tuple(
    row.strip()
    for row in """
    fruits; vegetables; farm animals; wild animals; birds; colours; musical instruments; sports; tools; kitchen objects
    things in a classroom; pieces of clothing; kinds of weather; jobs; hobbies; countries; rivers; drinks; desserts
    flowers; trees; insects; pieces of furniture; means of transport; parts of the body; things made of wood
    things made of glass; things that are cold; things that are round; board games; kinds of shops; school subjects
    ways to relax; ways to save water; reasons to read books; things to take on a trip; things to do on a rainy day
    feelings; shapes; planets; toys; things you can see at night; gifts for a child; good habits
    """.replace("\n", ";").split(";")
    if row.strip()
)
HELDOUT_THINGS = (
    "spices", "fish", "dances", "capital cities", "things made of metal", "things that are loud", "kinds of cheese",
    "ways to stay warm", "reasons to walk to work", "things to find on a beach", "names for a dog", "garden tools",
    "card games", "languages",
)  # fmt: skip

# What to invent, and the fields that a record of it could have.
TRAIN_RECORDS = {
    "a pet": ("name", "animal", "age", "colour", "food"),
    "a book": ("title", "author", "year", "pages", "genre"),
    "a city": ("name", "country", "population", "river", "founded"),
    "a person": ("name", "age", "job", "city", "hobby"),
    "a restaurant": ("name", "street", "dish", "price", "rating"),
    "a film": ("title", "year", "director", "hero", "minutes"),
    "a car": ("brand", "colour", "year", "seats", "price"),
    "a school": ("name", "city", "pupils", "head", "motto"),
    "a superhero": ("name", "power", "weakness", "enemy", "city"),
    "a recipe": ("dish", "minutes", "servings", "spice", "drink"),
    "a song": ("title", "singer", "year", "mood", "seconds"),
    "a football club": ("name", "city", "stadium", "colours", "coach"),
}
HELDOUT_RECORDS = {
    "a planet": ("name", "moons", "size", "colour", "star"),
    "a robot": ("model", "task", "height", "maker", "battery"),
    "an island": ("name", "ocean", "people", "harbour", "climate"),
    "a museum": ("name", "city", "paintings", "opened", "ticket"),
    "a horse": ("name", "age", "colour", "rider", "races"),
}
