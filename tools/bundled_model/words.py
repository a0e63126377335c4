"""Plain word lists the generators draw from."""

# ruff: noqa: SIM905 - word lists read better as text

from __future__ import annotations

FIRST = """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul
Quinn Rosa Sam Tom Uma Victor Wendy Xavier Yara Zoe Alice Bob Carol Daniel Eva Frank Gina Hugo Ivan
Julia Karl Laura Martin Nina Oscar Petra Ralph Sara Theo Ursula Vera Walter Yusuf Amir Bella Carlos
Diana Erik Fatima George Hana Igor Jana Kofi Lena Marco Nadia Omar Priya Rafael Sofia Tariq Viktor
Wei Yuki Zara Adam Beth Chris Dora Elena Finn Greta Hassan Ingrid James Kira Liam Mia Nora Otto
Pedro Rita Simon Tina Vince Will Aisha Boris Chloe Dmitri Ella Farid Gloria Helen Isaac John Kim
Linda Mary Nick Olga Peter Ruth Steve Tanya Alex Lucy Max Jane Mark Susan Robert Ada Alan Mira
Arthur Leila Milo Rene Sven Astrid Bruno Celia Dario Edith Fiona Gus Holly Jonas Lydia Mona Rhea
""".split()

LAST = """Smith Jones Brown Taylor Wilson Miller Davis Clark Lewis Walker Hall Young King Wright
Green Baker Adams Nelson Carter Mitchell Turner Parker Evans Edwards Collins Stewart Morris Rogers
Reed Cook Morgan Bell Murphy Bailey Cooper Cox Ward Gray Watson Brooks Kelly Price Bennett Wood Ross
Foster Hughes Long Hayes Ford Hamilton Graham Fisher Garcia Lopez Silva Santos Costa Rossi Bianchi
Weber Schmidt Fischer Wagner Becker Novak Horvat Kovacs Petrov Ivanov Sato Suzuki Tanaka Chen Wang
Li Zhang Kim Park Nguyen Tran Singh Patel Khan Ali Haddad Okafor Mensah Diallo Berg Lund Dahl Holm
Larsen Hansen Moreau Dubois Laurent Blanc Stone Rivers Marsh Hill Frost North West Fox Wolf Lamb
""".split()

PLACES = """Boston Chicago Denver Dallas Seattle Miami Austin Portland Toronto Montreal Sydney
Melbourne Perth Auckland Munich Hamburg Cologne Milan Naples Turin Venice Florence Barcelona Seville
Lyon Nice Bordeaux Geneva Zurich Basel Porto Krakow Bergen Malmo Turku Leeds York Bristol Glasgow
Cardiff Oxford Mumbai Chennai Osaka Kyoto Nagoya Busan Shanghai Shenzhen Lagos Mombasa Durban
Istanbul Izmir Dubai Odessa Lviv Ghent Antwerp Utrecht Rotterdam Salzburg Graz Paris London Berlin
Rome Madrid Oslo Tokyo Lima Cairo Athens Vienna Prague Lisbon Dublin Helsinki Warsaw Stockholm
""".split()

JOBS = """teacher doctor nurse engineer baker carpenter painter lawyer farmer pilot chef singer
writer librarian plumber electrician gardener dentist architect accountant mechanic journalist
photographer scientist programmer designer tailor musician actor translator fisherman driver guard
waiter barber florist potter sailor judge editor surgeon biologist chemist astronomer cook clerk
""".split()

COLOURS = """red blue green yellow orange purple pink brown black white grey silver golden violet
turquoise beige crimson""".split()

ANIMALS = """dog cat horse parrot rabbit hamster goat turtle goldfish pony duck sheep donkey canary
fox bear wolf owl mouse frog squirrel hedgehog lion tiger crow""".split()

FOODS = """pizza pasta soup salad bread cheese rice curry pancakes noodles sushi tacos apples pears
cherries grapes lemons honey chocolate coffee tea juice milk cake cookies potatoes carrots onions
tomatoes beans eggs butter mushrooms peaches plums""".split()

THINGS = """lamp chair table sofa desk clock mirror carpet kettle toaster camera phone laptop tablet
printer keyboard monitor headset bicycle scooter tent backpack jacket coat scarf hat boots umbrella
guitar piano violin drum vase bottle mug plate knife blanket pillow ladder hammer drill notebook pen
wallet watch ring basket bucket candle heater fan radio speaker charger helmet""".split()

MATERIALS = "wood steel glass cotton leather plastic stone wool paper copper clay bronze".split()

HOBBIES = """chess painting swimming hiking tennis cooking fishing sailing dancing photography
gardening cycling running reading knitting climbing skiing football""".split()

TOPICS = """history music physics chemistry geography biology poetry economics politics astronomy
medicine philosophy mathematics travel sports fashion design art gardening robots volcanoes dragons
trains bridges castles oceans rivers mountains birds insects stars planets energy climate health
cooking films books games languages engines computers markets schools museums islands deserts
""".split()

ADJECTIVES = """old new small large quiet bright cold warm fast slow cheap simple famous local
modern ancient hidden open free rare fresh strong soft dark tall long short deep round heavy light
""".split()

MONTHS = """January February March April May June July August September October November December
""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
LANGUAGES = """English French German Spanish Italian Portuguese Russian Japanese Chinese Korean
Arabic Hindi Turkish Greek Dutch Swedish Polish Finnish""".split()
CURRENCIES = "USD EUR GBP JPY CHF SEK NOK CAD AUD INR CNY BRL MXN PLN TRY".split()
WEATHER = """sunny cloudy rainy windy foggy snowy stormy clear overcast misty""".split()
UNITS = "celsius fahrenheit".split()
COMPANY = "Labs Works Systems Motors Foods Media Energy Group Bank Textiles Press Robotics".split()
BUILDING = "Tower Bridge Museum Library Hotel Castle Park Station Theatre Hospital School".split()
STREET = "Street Road Avenue Lane".split()

# Parts of made-up names. Few letters, so that the vocabulary learns the syllables.
ONSETS = "b br d dr f fl g gr h j k kr l m n p pl r s sh st t tr v w y z th".split()
VOWELS = "a e i o u ai ea ia".split()
CODAS = ["", "", "", "", "n", "r", "l", "s", "x", "k", "m", "nd", "rt"]
