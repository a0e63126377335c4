"""Words and parts of words of the vocabulary, so that each of them is copied in training."""

from __future__ import annotations

# ruff: noqa: SIM905 - word lists read better as text
PIECES = """
aac ab about ac access account ach ache acher aches achine ack acket acts ad ada adam adams add
address ade adi adia adio ador ael af afraid after ag again age aged ages ago ah ai aib aid aif
aig aij aik ail ailing ailor aim ain aind aint aip air airo airt ais aisha aist ait aith aiv aiw
aix aiy aiz aj ak aka ake aker akes al ala alan alance alex ali alia alice all alone along alse am
ama amb ame amed amera ames ameters amir amount amous amp ample an ana anama anc ance ancing and
anda andle ands ane ang ange anguage ani ania aniel anim animal anish aniz anna annel ano ans answ
answer answering answers ant anti antity anu any anya anything ap apan ape aper apital apl aple
approve apri april aptop ar ara arab arabic arch architect archive ard arden are ared arge arger
args argu arguments ari arian arid ario ariq ark arket ars art arters arthur ary as ase ash ashi
ask asked asks ass assan assign assist assistant ast aster astrid astron at atch ate ated ater
aterial ates ath athens ather athon ati atient atima ation ato atoes atre attention ature atus au
aug augu august aur aura av ave aven avenue avier avy aw ax ay ayer ayment ays az bab back
backpack bah bai bailey baker balance ban bang bank bar bas based basket batch be becker beg began
begins beige bel bell bella below ben bennett ber berg berlin bert bet beth better bian bianchi
bing bir birth bject black blan blanc blanket blocks blue bo board bon book boolean boot boots
boris born bot botics bottle bout br bra brand brary bre bread bri brid bridge brief briefly
bright bro brooks brown bru bu build bum but buy buyer buys by cache cake cal call called came
camera can cancel candle capital car carf carlos carol carpet carries carry cast castle cation ce
cel celia cense cert ces cess ch chair che cheap check chedu chedule chema chen cher ches chi
child children chinese chloe cho chris ci cia cipe city ck cker cket cl clara clark clear cling
clos close closes closing co coat code coding col cold collins color colour com come comes company
con conc concert concise cond condition conference conform conforms consists context cook cooper
coot cooter copy cord core cost costa costs could count country cox create crimson crip cs ct
ction ctions ctor cts cu cul cup cupation currency current customer cy dah dahl dam daniel dario
dat data date dav david day days dd ddenly de dec december decided decoding def define degrees
delete delivery den der des descrip description desig design designed desk dh di dia diana did
ding dium divide dj djibouti do does dog dol dollars dom don done door dora down dr dre dreamed
dri drill ds du dubl dublin dubo dubois duct dut dutch ea eab each ead eaf eak eal ear earch eart
eat eats eax eaz ec ece eces econd ed edith edward edwards ees ef eg ek el elds elena eli elia
eliv elivery elix ell ella ellow em email emb ember emma emper emperature employ employed
employees employer employs en ena ences end endy ener energy eng english ening enjoy enjoys enly
ens ense ensor ent entist enum ep er era ere eren erence erik ern error ers erson ert erver ery es
ese ess est estion ests et etch eth eting etw euros ev eva evans evening event ever every
everything evi evice ew ex example exist existed expects explain ext extract ey eys facts fai
failed fair false fan far farid fatima fav favourite fe febru february fee fel felix felt ference
fes fession fest fetch fi fields file fill find finn finnish fiona first fis fischer fish fisher
fits fix fl fle fli flo fol follow followed following fond food foods for ford fore forecast
forgot form format formatted former foster found founded founder four fox frank fren french fresh
friend friends from frost ft ful full function functions fut future ga gar garcia garden gardening
gave ge geor george ger german get gh ght gi give given gl glad glish gn go gold golden good gor
got gr gra grace graham gram grams gre green grees greta grew grey gri group gs gu gua guage gue
guests guinea guitar gus gy had hall ham hana hans hansen hap happens happy has hassan hat have he
hea head headquarters headset heavy hed height hel held helen hello helmet help helpful hen henry
hens her here hes hi hich high hild hildren hile hill hind hindi hip hite ho hob hobby hol holly
holm home hone hop hos hospital host hosted hot hotel hours how hu hug hughes hugo human hurt hy
ia iab iad iaf iag iaj iak ial iam ian iana iand iar iart ias iast iat iaw iax iay iaz ib ibouti
ic ica ice ick icyc icycle id ide ided ideo ids ie ier ies if ife ig ige igh ight igor ij ik il
ila ild ilk ill illage ille ills ilo im imming imum in ina ince ind inda ine inea ines inese infor
information ing ink inn ins inst instance instru instructions inte integer interest into iol iolog
ion iona ions ir ira iris irst irt is isaac ise ish isha isit isitors islands ist istan it ita
ital italian itar itche ite itect item ith ition itor its itting ittle ity iv ivan ivanov ive iven
ives ivia ivide ix iz jack jacket james jana jane janu january japan japanese je ject job jon
jonas jones joy json juice jul julia july june just ka kate ke ked keep kel kelly ken ker ket key
keyboard keys kg kh khan kids kilo kilograms kind king kira kn knew knife know knowled knowledge
kore korean kova kovacs kre kri ks ku ky la lab labs lace lack lage lamp lan land lands lane
language lanket laptop lar lara large lars larsen last lasts lat lau laug laughed laura laurent ld
le lear learn learned lease led leep legs leila len lena leo les let lete lets lew lewis lex ley
li liam library lic license life light lik like likeli likeliest likes lim lima limbing limit lin
linda lins lis lisbon list little liv live lived lives ll lo loc located location lock locks loe
long look lookup lor los lose lost lov loves low lu lucy lue lver ly lydia ma mad made madrid mail
make maker makes mal mall man many map mar marathon march maria mark market married marsh martin
mary mat matches material mation matter max maximum may me mean means meantime med media medium
meeting mem men mens mensah ment ments mer met metres mi mia mid milo ming mir mira mirror mist
mit mitche mitchell mod model models mon mona monitor months mor more moreau morg morgan morn
morning morris most mot mother motors mov move moved mple much mug multiply mur murphy museum
music my na nadia name named ne need needs nel nelson ner net nett netw network neural never new
next ngu nguyen ni nick niger night nina ning no noah nobody none nor nora north not note notebook
notes nov novak november now nowy nt null numb number numbers ny oat ob obby ober object obody oc
occupation ock oct october od ode ody oe of offi office og ograp ography oh oise ok oka okafor oke
oks okup ol old ole olean olet olf olga olivia oll olour ols om omar ome omer on once ond one oney
ong oni only ons ony ood oodles ook ool ools oon oot op open opened oper ople opy or ora orange
ord order orders ore ores org organiz organized organizer oris ority ork orks orn ors ort ory os
ose oslo ost osta oster ot otal otatoes ote other oto otter ou ought ould oun ound oung ount oup
oupon our ourite ourn ours ourse ous ouse out outh outi output ov ova ove over ow own owner ox oy
oz pa pack page pain paint painted pal pany par parameters paris park parker party pass passages
past pat patel path paul pays pe peak pects ped pedro pen pens people per person pes pet peter
petra petrov phone phot phy pi piano pieces pil pillow pital pl pla place plain plan plate ple
please pling plo ploy plus pol polish port porto portugu portuguese post pound pounds pp pprove
pra prague pre prefill press pri price print printer prior priority priya pro product profession
program project prom prompt proper properties prove pt publish purple put py python qu quantity
quarters query question qui quick quiet quinn quire quoise ra rab rack ract raf rafael rai raid
raik raim rain rak ram ran rank rans ranty rap rate rated rating rav ravel re rea reach reache
reached read reads ream reate record red ree reed reet ref refers reject rel remem remember ren
rename rent rep report republic requ requests requi required res resh ress restore resul result
ret retriev retrieve retrieved return revi review rhea ri ria riak ric rid ried riend ries riev
rieve right rik rim rimson rin ring rint rinter rip ris rita rite riv rivers ro road robert robot
robotics rog rom rome ron room ror ros rosa ross rossi rost rot rots round roup route rov row rown
rt ru ruk rules rum run rus russi russian ruth ry said saint sal sam sampling san sang sant santos
sara sat sato say scarf sch schedule schema schmid schmidt school scooter score se sea search
second see seen sell sells send sent sentences sep september server set sh share shared she shi
ship shop should si sia sign sil silva sim simon simple since sing singh sion sist sists sits size
sk sku sky sleep slow sm small smi smiled smith so sof sofa sofia sold some something son song
soon south sp spanish speak speaker speaks spouse ss ssage st stan stands start starts states
station status ste stem step ster steve stew sti stic stock stockhol stockholm stone stop stopped
store str street streets string stron strong stru student su subtract such suddenly sul sula sum
summit sun suzuki sven sw swed swedish swer system systems ta tab table tags tai take takes tall
tan tanaka tanya tariq tas task tasks tay taylor te teacher team ted tell tember temperature ten
tent tention ter terest ters tex text textiles th than thank thanks that the theatre then theo
ther there these they thi thing things this thon thought three ths thur ti ticket tics ties tiles
time times tin tina ting tion tip tist tit title titled tle to toget together token tokens tom ton
tongue too tool tools top tor torch total tow tower town tr track tract train trained tran trans
transformer travel tre tree tri tru true try ts tur turk turkish turn turned turner two txt ty
type ub ubl ublic ublish ubtract uch ud udent ue ues uf ug ugu uice uj uk uki ul ules ull ultip
ultiply um uma uman umb umber umbrel umbrella ump ums un unction und under une unit united unt up
update upon ur ural ure urg urgent urn uros urple urren urrency urrent urry ursula urt us usan use
user useum ush ushi usic using ust ustomer ut ute uth uv uw ux uy uyer uz va vase ve ven ver vera
vi victor video vien vienna view vik viktor village vince viol violet violin visitors vo voice wag
wagner wait waited wal walked walker walter wang want wanted wants war ward warm warranty was wat
watch water watson way ways we weather web weber week wei weigh weighs weight weights well wendy
went were west wh what when where which while white who whom whose wil will wilson wind wish with
within without wn wo wolf wood word work works workshop would wr wright writ write writes wrong
xavier xt xtract ya yara yc year years yellow yen you young your ystem ything yuki yus yusuf za
zara zb ze zh zhang zoe zuki
""".split()
