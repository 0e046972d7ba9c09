# ruff: noqa: E501 -- a row of a table is one line.
"""The hand-written bilingual lexicons, one row per entry: English | German | French | Spanish.

Nouns        singular [plural]; German: singular gender plural; French and Spanish: singular gender [plural].
People       English; German masculine, genitive, feminine (``~`` marks the weak declension); French and Spanish
             masculine, feminine.
Adjectives   German: predicative [stem]; French: masculine [feminine [masculine before a vowel]], ``<`` when the
             adjective precedes its noun; Spanish: masculine.
Verbs        English: base past (``look/for`` has a particle); German: infinitive, 3rd singular, participle
             (``an+rufen`` separates, ``*`` takes sein, ``=`` governs the dative);
             French: infinitive[:singular,we,they[:future stem[:participle]]], ``*`` takes être;
             Spanish: infinitive[:singular,they[:preterite singular,we,they[:future stem]]].
Phrases      ``word/k``: words of both sides with the same k correspond; ``word/>h``: no counterpart of its own,
             belongs to the words of h; ``word/k>h``: both; ``{slot}``: filled in.
"""

THINGS = """
chair | Stuhl m Stühle | chaise f | silla f
table | Tisch m Tische | table f | mesa f
lamp | Lampe f Lampen | lampe f | lámpara f
book | Buch n Bücher | livre m | libro m
car | Auto n Autos | voiture f | coche m
bicycle | Fahrrad n Fahrräder | vélo m | bicicleta f
clock | Uhr f Uhren | horloge f | reloj m
house | Haus n Häuser | maison f | casa f
picture | Bild n Bilder | tableau m tableaux | cuadro m
bottle | Flasche f Flaschen | bouteille f | botella f
glass glasses | Glas n Gläser | verre m | vaso m
cup | Tasse f Tassen | tasse f | taza f
plate | Teller m Teller | assiette f | plato m
knife knives | Messer n Messer | couteau m couteaux | cuchillo m
fork | Gabel f Gabeln | fourchette f | tenedor m
spoon | Löffel m Löffel | cuillère f | cuchara f
bag | Tasche f Taschen | sac m | bolso m
suitcase | Koffer m Koffer | valise f | maleta f
letter | Brief m Briefe | lettre f | carta f
key | Schlüssel m Schlüssel | clé f | llave f
door | Tür f Türen | porte f | puerta f
window | Fenster n Fenster | fenêtre f | ventana f
mirror | Spiegel m Spiegel | miroir m | espejo m
carpet | Teppich m Teppiche | tapis m tapis | alfombra f
bed | Bett n Betten | lit m | cama f
cupboard | Schrank m Schränke | armoire f | armario m
box boxes | Kiste f Kisten | boîte f | caja f
basket | Korb m Körbe | panier m | cesta f
hat | Hut m Hüte | chapeau m chapeaux | sombrero m
coat | Mantel m Mäntel | manteau m manteaux | abrigo m
shirt | Hemd n Hemden | chemise f | camisa f
dress dresses | Kleid n Kleider | robe f | vestido m
skirt | Rock m Röcke | jupe f | falda f
jacket | Jacke f Jacken | veste f | chaqueta f
ring | Ring m Ringe | bague f | anillo m
coin | Münze f Münzen | pièce f | moneda f
ticket | Fahrkarte f Fahrkarten | billet m | billete m
map | Landkarte f Landkarten | carte f | mapa m
newspaper | Zeitung f Zeitungen | journal m journaux | periódico m
pencil | Bleistift m Bleistifte | crayon m | lápiz m lápices
notebook | Heft n Hefte | cahier m | cuaderno m
computer | Computer m Computer | ordinateur m | ordenador m
telephone | Telefon n Telefone | téléphone m | teléfono m
camera | Kamera f Kameras | caméra f | cámara f
printer | Drucker m Drucker | imprimante f | impresora f
machine | Maschine f Maschinen | machine f | máquina f
engine | Motor m Motoren | moteur m | motor m
boat | Boot n Boote | bateau m bateaux | barco m
wheel | Rad n Räder | roue f | rueda f
rope | Seil n Seile | corde f | cuerda f
hammer | Hammer m Hämmer | marteau m marteaux | martillo m
saw | Säge f Sägen | scie f | sierra f
nail | Nagel m Nägel | clou m | clavo m
ladder | Leiter f Leitern | échelle f | escalera f
stove | Herd m Herde | cuisinière f | cocina f
pan | Pfanne f Pfannen | poêle f | sartén f sartenes
candle | Kerze f Kerzen | bougie f | vela f
curtain | Vorhang m Vorhänge | rideau m rideaux | cortina f
blanket | Decke f Decken | couverture f | manta f
pillow | Kissen n Kissen | oreiller m | almohada f
towel | Handtuch n Handtücher | serviette f | toalla f
piano | Klavier n Klaviere | piano m | piano m
guitar | Gitarre f Gitarren | guitare f | guitarra f
violin | Geige f Geigen | violon m | violín m violines
flute | Flöte f Flöten | flûte f | flauta f
drum | Trommel f Trommeln | tambour m | tambor m
doll | Puppe f Puppen | poupée f | muñeca f
ball | Ball m Bälle | ballon m | balón m balones
gift | Geschenk n Geschenke | cadeau m cadeaux | regalo m
parcel | Paket n Pakete | paquet m | paquete m
stone | Stein m Steine | pierre f | piedra f
tree | Baum m Bäume | arbre m | árbol m
flower | Blume f Blumen | fleur f | flor f
horse | Pferd n Pferde | cheval m chevaux | caballo m
cow | Kuh f Kühe | vache f | vaca f
sheep sheep | Schaf n Schafe | mouton m | oveja f
goat | Ziege f Ziegen | chèvre f | cabra f
dog | Hund m Hunde | chien m | perro m
cat | Katze f Katzen | chat m | gato m
rabbit | Kaninchen n Kaninchen | lapin m | conejo m
chicken | Huhn n Hühner | poule f | gallina f
duck | Ente f Enten | canard m | pato m
fish fish | Fisch m Fische | poisson m | pez m peces
apple | Apfel m Äpfel | pomme f | manzana f
pear | Birne f Birnen | poire f | pera f
lemon | Zitrone f Zitronen | citron m | limón m limones
egg | Ei n Eier | œuf m | huevo m
cake | Kuchen m Kuchen | gâteau m gâteaux | pastel m
cheese | Käse m Käse | fromage m | queso m
onion | Zwiebel f Zwiebeln | oignon m | cebolla f
potato potatoes | Kartoffel f Kartoffeln | pomme:de:terre f pommes:de:terre | patata f
umbrella | Regenschirm m Regenschirme | parapluie m | paraguas m paraguas
glove | Handschuh m Handschuhe | gant m | guante m
boot | Stiefel m Stiefel | botte f | bota f
belt | Gürtel m Gürtel | ceinture f | cinturón m cinturones
button | Knopf m Knöpfe | bouton m | botón m botones
needle | Nadel f Nadeln | aiguille f | aguja f
brush brushes | Bürste f Bürsten | brosse f | cepillo m
bucket | Eimer m Eimer | seau m seaux | cubo m
shovel | Schaufel f Schaufeln | pelle f | pala f
barrel | Fass n Fässer | tonneau m tonneaux | barril m
bell | Glocke f Glocken | cloche f | campana f
flag | Fahne f Fahnen | drapeau m drapeaux | bandera f
tent | Zelt n Zelte | tente f | tienda f
statue | Statue f Statuen | statue f | estatua f
crown | Krone f Kronen | couronne f | corona f
sword | Schwert n Schwerter | épée f | espada f
"""

PEOPLE = """
teacher | Lehrer Lehrers Lehrerin | professeur professeure | profesor profesora
doctor | Arzt Arztes Ärztin | médecin médecin | médico médica
lawyer | Anwalt Anwalts Anwältin | avocat avocate | abogado abogada
baker | Bäcker Bäckers Bäckerin | boulanger boulangère | panadero panadera
butcher | Metzger Metzgers Metzgerin | boucher bouchère | carnicero carnicera
cook | Koch Kochs Köchin | cuisinier cuisinière | cocinero cocinera
waiter | Kellner Kellners Kellnerin | serveur serveuse | camarero camarera
farmer | Bauer~ Bauern Bäuerin | agriculteur agricultrice | agricultor agricultora
gardener | Gärtner Gärtners Gärtnerin | jardinier jardinière | jardinero jardinera
painter | Maler Malers Malerin | peintre peintre | pintor pintora
singer | Sänger Sängers Sängerin | chanteur chanteuse | cantante cantante
dancer | Tänzer Tänzers Tänzerin | danseur danseuse | bailarín bailarina
actor | Schauspieler Schauspielers Schauspielerin | acteur actrice | actor actriz
writer | Schriftsteller Schriftstellers Schriftstellerin | écrivain écrivaine | escritor escritora
journalist | Journalist~ Journalisten Journalistin | journaliste journaliste | periodista periodista
photographer | Fotograf~ Fotografen Fotografin | photographe photographe | fotógrafo fotógrafa
musician | Musiker Musikers Musikerin | musicien musicienne | músico música
engineer | Ingenieur Ingenieurs Ingenieurin | ingénieur ingénieure | ingeniero ingeniera
architect | Architekt~ Architekten Architektin | architecte architecte | arquitecto arquitecta
mechanic | Mechaniker Mechanikers Mechanikerin | mécanicien mécanicienne | mecánico mecánica
electrician | Elektriker Elektrikers Elektrikerin | électricien électricienne | electricista electricista
carpenter | Tischler Tischlers Tischlerin | menuisier menuisière | carpintero carpintera
tailor | Schneider Schneiders Schneiderin | tailleur tailleuse | sastre sastra
hairdresser | Friseur Friseurs Friseurin | coiffeur coiffeuse | peluquero peluquera
dentist | Zahnarzt Zahnarztes Zahnärztin | dentiste dentiste | dentista dentista
nurse | Krankenpfleger Krankenpflegers Krankenpflegerin | infirmier infirmière | enfermero enfermera
pharmacist | Apotheker Apothekers Apothekerin | pharmacien pharmacienne | farmacéutico farmacéutica
chemist | Chemiker Chemikers Chemikerin | chimiste chimiste | químico química
physicist | Physiker Physikers Physikerin | physicien physicienne | físico física
biologist | Biologe~ Biologen Biologin | biologiste biologiste | biólogo bióloga
historian | Historiker Historikers Historikerin | historien historienne | historiador historiadora
judge | Richter Richters Richterin | juge juge | juez jueza
policeman | Polizist~ Polizisten Polizistin | policier policière | policía policía
soldier | Soldat~ Soldaten Soldatin | soldat soldate | soldado soldado
pilot | Pilot~ Piloten Pilotin | pilote pilote | piloto piloto
fisherman | Fischer Fischers Fischerin | pêcheur pêcheuse | pescador pescadora
student | Student~ Studenten Studentin | étudiant étudiante | estudiante estudiante
pupil | Schüler Schülers Schülerin | élève élève | alumno alumna
translator | Übersetzer Übersetzers Übersetzerin | traducteur traductrice | traductor traductora
librarian | Bibliothekar Bibliothekars Bibliothekarin | bibliothécaire bibliothécaire | bibliotecario bibliotecaria
secretary | Sekretär Sekretärs Sekretärin | secrétaire secrétaire | secretario secretaria
seller | Verkäufer Verkäufers Verkäuferin | vendeur vendeuse | vendedor vendedora
director | Direktor Direktors Direktorin | directeur directrice | director directora
president | Präsident~ Präsidenten Präsidentin | président présidente | presidente presidenta
minister | Minister Ministers Ministerin | ministre ministre | ministro ministra
"""

EVENTS = """
meeting | Sitzung f Sitzungen | réunion f | reunión f
concert | Konzert n Konzerte | concert m | concierto m
course | Kurs m Kurse | cours m | curso m
lecture | Vorlesung f Vorlesungen | conférence f | conferencia f
exam | Prüfung f Prüfungen | examen m | examen m
festival | Festival n Festivals | festival m | festival m
exhibition | Ausstellung f Ausstellungen | exposition f | exposición f
wedding | Hochzeit f Hochzeiten | mariage m | boda f
competition | Wettbewerb m Wettbewerbe | concours m | concurso m
match | Spiel n Spiele | match m | partido m
party | Feier f Feiern | fête f | fiesta f
interview | Interview n Interviews | entretien m | entrevista f
"""

ADJECTIVES = """
red | rot | rouge | rojo
green | grün | vert | verde
blue | blau | bleu | azul
yellow | gelb | jaune | amarillo
black | schwarz | noir | negro
white | weiß | blanc blanche | blanco
grey | grau | gris | gris
brown | braun | brun | pardo
old | alt | <vieux vieille vieil | viejo
new | neu | <nouveau nouvelle nouvel | nuevo
beautiful | schön | <beau belle bel | hermoso
small | klein | <petit | pequeño
big | groß | <grand | grande
long | lang | <long longue | largo
bad | schlecht | <mauvais | malo
heavy | schwer | lourd | pesado
light | leicht | léger légère | ligero
expensive | teuer teur | cher chère | caro
cheap | billig | abordable | barato
modern | modern | moderne | moderno
round | rund | rond | redondo
broken | kaputt | cassé | roto
dirty | schmutzig | sale | sucio
clean | sauber | propre | limpio
dry | trocken | sec sèche | seco
wet | nass | mouillé | mojado
dark | dunkel dunkl | sombre | oscuro
strange | seltsam | étrange | extraño
famous | berühmt | célèbre | famoso
dangerous | gefährlich | dangereux dangereuse | peligroso
useful | nützlich | utile | útil
important | wichtig | important | importante
simple | einfach | simple | sencillo
rare | selten | rare | raro
strong | stark | fort | fuerte
soft | weich | doux douce | suave
hard | hart | dur | duro
cold | kalt | froid | frío
warm | warm | chaud | cálido
thin | dünn | mince | delgado
wide | breit | large | ancho
ugly | hässlich | laid | feo
perfect | perfekt | parfait | perfecto
precious | wertvoll | précieux précieuse | valioso
elegant | elegant | élégant | elegante
"""

PEOPLE_ADJECTIVES = """
young | jung | <jeune | joven
old | alt | <vieux vieille vieil | viejo
famous | berühmt | célèbre | famoso
friendly | freundlich | aimable | amable
rich | reich | riche | rico
poor | arm | pauvre | pobre
intelligent | intelligent | intelligent | inteligente
polite | höflich | poli | cortés
strict | streng | sévère | severo
brave | mutig | courageux courageuse | valiente
tall | groß | <grand | alto
experienced | erfahren | expérimenté | experimentado
"""

DEGREES = """
very | sehr | très | muy
too | zu | trop | demasiado
quite | ziemlich | assez | bastante
really | wirklich | vraiment | realmente
"""

TAKE_THING = """
buy bought | kaufen kauft gekauft | acheter:achète,achetons,achètent:achèter | comprar
sell sold | verkaufen verkauft verkauft | vendre:vend,vendons,vendent:vendr:vendu | vender
repair repaired | reparieren repariert repariert | réparer | reparar
clean cleaned | reinigen reinigt gereinigt | nettoyer:nettoie,nettoyons,nettoient:nettoier | limpiar
find found | finden findet gefunden | trouver | encontrar:encuentra,encuentran
lose lost | verlieren verliert verloren | perdre:perd,perdons,perdent:perdr:perdu | perder:pierde,pierden
carry carried | tragen trägt getragen | porter | llevar
order ordered | bestellen bestellt bestellt | commander | encargar
hide hid | verstecken versteckt versteckt | cacher | esconder
check checked | prüfen prüft geprüft | vérifier | comprobar:comprueba,comprueban
steal stole | stehlen stiehlt gestohlen | voler | robar
describe described | beschreiben beschreibt beschrieben | décrire:décrit,décrivons,décrivent:décrir:décrit | describir
draw drew | zeichnen zeichnet gezeichnet | dessiner | dibujar
pick/up picked | ab+holen holt abgeholt | récupérer:récupère,récupérons,récupèrent | recoger
put/away put | weg+räumen räumt weggeräumt | ranger | guardar
throw/away threw | weg+werfen wirft weggeworfen | jeter:jette,jetons,jettent:jetter | tirar
bring/back brought | zurück+bringen bringt zurückgebracht | rapporter | devolver:devuelve,devuelven
choose chose | aus+wählen wählt ausgewählt | choisir:choisit,choisissons,choisissent:choisir:choisi | seleccionar
look/for looked | suchen sucht gesucht | chercher | buscar
export exported | exportieren exportiert exportiert | exporter | exportar
admire admired | bewundern bewundert bewundert | admirer | admirar
paint painted | malen malt gemalt | peindre:peint,peignons,peignent:peindr:peint | pintar
break broke | zerbrechen zerbricht zerbrochen | casser | romper
"""

TAKE_PERSON = """
invite invited | ein+laden lädt eingeladen | inviter | invitar
call called | an+rufen ruft angerufen | appeler:appelle,appelons,appellent:appeller | llamar
help helped | =helfen hilft geholfen | aider | ayudar
listen/to listened | =zu+hören hört zugehört | écouter | escuchar
look/for looked | suchen sucht gesucht | chercher | buscar
pay paid | bezahlen bezahlt bezahlt | payer:paie,payons,paient:paier | pagar
hire hired | ein+stellen stellt eingestellt | embaucher | contratar
accompany accompanied | begleiten begleitet begleitet | accompagner | acompañar
protect protected | beschützen beschützt beschützt | protéger:protège,protégeons,protègent | proteger
admire admired | bewundern bewundert bewundert | admirer | admirar
warn warned | warnen warnt gewarnt | avertir:avertit,avertissons,avertissent:avertir:averti | advertir:advierte,advierten:advirtió,advertimos,advirtieron
wake/up woke | auf+wecken weckt aufgeweckt | réveiller | despertar:despierta,despiertan
follow followed | =folgen folgt gefolgt* | suivre:suit,suivons,suivent:suivr:suivi | seguir:sigue,siguen:siguió,seguimos,siguieron
"""

GIVE = """
give gave | geben gibt gegeben | donner | dar:da,dan:dio,dimos,dieron
send sent | schicken schickt geschickt | envoyer:envoie,envoyons,envoient:enverr | enviar:envía,envían
show showed | zeigen zeigt gezeigt | montrer | mostrar:muestra,muestran
sell sold | verkaufen verkauft verkauft | vendre:vend,vendons,vendent:vendr:vendu | vender
lend lent | leihen leiht geliehen | prêter | prestar
bring brought | bringen bringt gebracht | apporter | llevar
offer offered | an+bieten bietet angeboten | offrir:offre,offrons,offrent:offrir:offert | ofrecer
promise promised | versprechen verspricht versprochen | promettre:promet,promettons,promettent:promettr:promis | prometer
"""

TRAVEL = """
travel traveled | reisen reist gereist* | voyager | viajar
return returned | zurück+kehren kehrt zurückgekehrt* | revenir:revient,revenons,reviennent:reviendr:revenu* | volver:vuelve,vuelven
go went | fahren fährt gefahren* | aller:va,allons,vont:ir:allé* | ir:va,van:fue,fuimos,fueron
come came | kommen kommt gekommen* | venir:vient,venons,viennent:viendr:venu* | venir:viene,vienen:vino,vinimos,vinieron:vendr
"""

ACTIVITIES = """
work worked | arbeiten arbeitet gearbeitet | travailler | trabajar
sleep slept | schlafen schläft geschlafen | dormir:dort,dormons,dorment:dormir:dormi | dormir:duerme,duermen:durmió,dormimos,durmieron
wait waited | warten wartet gewartet | attendre:attend,attendons,attendent:attendr:attendu | esperar
sing sang | singen singt gesungen | chanter | cantar
dance danced | tanzen tanzt getanzt | danser | bailar
cook cooked | kochen kocht gekocht | cuisiner | cocinar
swim swam | schwimmen schwimmt geschwommen* | nager | nadar
study studied | studieren studiert studiert | étudier | estudiar
read read | lesen liest gelesen | lire:lit,lisons,lisent:lir:lu | leer:lee,leen:leyó,leímos,leyeron
write wrote | schreiben schreibt geschrieben | écrire:écrit,écrivons,écrivent:écrir:écrit | escribir
live lived | wohnen wohnt gewohnt | habiter | vivir
run ran | laufen läuft gelaufen* | courir:court,courons,courent:courr:couru | correr
"""

LEARN = """
learn learned | lernen lernt gelernt | apprendre:apprend,apprenons,apprennent:apprendr:appris | aprender
teach taught | unterrichten unterrichtet unterrichtet | enseigner | enseñar
understand understood | verstehen versteht verstanden | comprendre:comprend,comprenons,comprennent:comprendr:compris | entender:entiende,entienden
"""
SPEAK = "speak spoke | sprechen spricht gesprochen | parler | hablar"
WORK = "work worked | arbeiten arbeitet gearbeitet | travailler | trabajar"

HAPPEN = """
begin began | beginnen beginnt begonnen | commencer | empezar:empieza,empiezan
end ended | enden endet geendet | finir:finit,finissons,finissent:finir:fini | terminar
take/place took | statt+finden findet stattgefunden | avoir/lieu:a,avons,ont:aur:eu | tener/lugar:tiene,tienen:tuvo,tuvimos,tuvieron:tendr
"""

WEIGH = "weigh weighed | wiegen wiegt gewogen | peser:pèse,pesons,pèsent:pèser | pesar"
COST = "cost cost | kosten kostet gekostet | coûter | costar:cuesta,cuestan"
BE = "be was | sein ist gewesen* | être:est,sommes,sont:ser:été | ser:es,son:fue,fuimos,fueron"

REPORT = """
say said | sagen sagt gesagt | dire:dit,disons,disent:dir:dit | decir:dice,dicen:dijo,dijimos,dijeron:dir
know knew | wissen weiß gewusst | savoir:sait,savons,savent:saur:su | saber:sabe,saben:supo,supimos,supieron:sabr
think thought | denken denkt gedacht | penser | pensar:piensa,piensan
believe believed | glauben glaubt geglaubt | croire:croit,croyons,croient:croir:cru | creer:cree,creen:creyó,creímos,creyeron
explain explained | erklären erklärt erklärt | expliquer | explicar
write wrote | schreiben schreibt geschrieben | écrire:écrit,écrivons,écrivent:écrir:écrit | escribir
announce announced | verkünden verkündet verkündet | annoncer | anunciar
"""

SPOTS = """
in/1 the/2 kitchen/3 | in/1 der/2 Küche/3 | dans/1 la/2 cuisine/3 | en/1 la/2 cocina/3
in/1 the/2 garden/3 | in/1 dem/2 Garten/3 | dans/1 le/2 jardin/3 | en/1 el/2 jardín/3
at/1 the/2 station/3 | an/1 dem/2 Bahnhof/3 | à/1 la/2 gare/3 | en/1 la/2 estación/3
at/1 the/2 airport/3 | an/1 dem/2 Flughafen/3 | à/1 le/2 aéroport/3 | en/1 el/2 aeropuerto/3
at/1 the/2 market/3 | auf/1 dem/2 Markt/3 | à/1 le/2 marché/3 | en/1 el/2 mercado/3
at/1 the/2 university/3 | an/1 der/2 Universität/3 | à/1 la/2 université/3 | en/1 la/2 universidad/3
in/1 the/2 office/3 | in/1 dem/2 Büro/3 | à/1 le/2 bureau/3 | en/1 la/2 oficina/3
in/1 the/2 hospital/3 | in/1 dem/2 Krankenhaus/3 | à/1 le/2 hôpital/3 | en/1 el/2 hospital/3
in/1 the/2 museum/3 | in/1 dem/2 Museum/3 | à/1 le/2 musée/3 | en/1 el/2 museo/3
in/1 the/2 library/3 | in/1 der/2 Bibliothek/3 | à/1 la/2 bibliothèque/3 | en/1 la/2 biblioteca/3
in/1 the/2 restaurant/3 | in/1 dem/2 Restaurant/3 | à/1 le/2 restaurant/3 | en/1 el/2 restaurante/3
in/1 the/2 hotel/3 | in/1 dem/2 Hotel/3 | à/1 le/2 hôtel/3 | en/1 el/2 hotel/3
in/1 the/2 factory/3 | in/1 der/2 Fabrik/3 | à/1 la/2 usine/3 | en/1 la/2 fábrica/3
at/1 the/2 school/3 | in/1 der/2 Schule/3 | à/1 la/2 école/3 | en/1 la/2 escuela/3
in/1 the/2 church/3 | in/1 der/2 Kirche/3 | dans/1 la/2 église/3 | en/1 la/2 iglesia/3
in/1 the/2 forest/3 | in/1 dem/2 Wald/3 | dans/1 la/2 forêt/3 | en/1 el/2 bosque/3
on/1 the/2 beach/3 | an/1 dem/2 Strand/3 | sur/1 la/2 plage/3 | en/1 la/2 playa/3
in/1 the/2 village/3 | in/1 dem/2 Dorf/3 | dans/1 le/2 village/3 | en/1 el/2 pueblo/3
in/1 the/2 park/3 | in/1 dem/2 Park/3 | dans/1 le/2 parc/3 | en/1 el/2 parque/3
on/1 the/2 bridge/3 | auf/1 der/2 Brücke/3 | sur/1 le/2 pont/3 | en/1 el/2 puente/3
in/1 the/2 cellar/3 | in/1 dem/2 Keller/3 | à/1 la/2 cave/3 | en/1 el/2 sótano/3
in/1 the/2 theater/3 | in/1 dem/2 Theater/3 | à/1 le/2 théâtre/3 | en/1 el/2 teatro/3
in/1 front/1 of/1 the/2 house/3 | vor/1 dem/2 Haus/3 | devant/1 la/2 maison/3 | delante/1 de/1 la/2 casa/3
behind/1 the/2 wall/3 | hinter/1 der/2 Mauer/3 | derrière/1 le/2 mur/3 | detrás/1 de/1 el/2 muro/3
near/1 the/2 river/3 | in/>1 der/>1 Nähe/1 des/2 Flusses/3 | près/1 de/1 la/2 rivière/3 | cerca/1 de/1 el/2 río/3
"""

VEHICLES = """
by/1 train/2 | mit/1 dem/>2 Zug/2 | en/1 train/2 | en/1 tren/2
by/1 bus/2 | mit/1 dem/>2 Bus/2 | en/1 bus/2 | en/1 autobús/2
by/1 car/2 | mit/1 dem/>2 Auto/2 | en/1 voiture/2 | en/1 coche/2
by/1 ship/2 | mit/1 dem/>2 Schiff/2 | en/1 bateau/2 | en/1 barco/2
by/1 plane/2 | mit/1 dem/>2 Flugzeug/2 | en/1 avion/2 | en/1 avión/2
by/1 taxi/2 | mit/1 dem/>2 Taxi/2 | en/1 taxi/2 | en/1 taxi/2
"""

DURATIONS = {
    "minute": "for/1 {n} minutes/2 | {n} Minuten/2 lang/1 | pendant/1 {n} minutes/2 | durante/1 {n} minutos/2",
    "hour": "for/1 {n} hours/2 | {n} Stunden/2 lang/1 | pendant/1 {n} heures/2 | durante/1 {n} horas/2",
    "day": "for/1 {n} days/2 | {n} Tage/2 lang/1 | pendant/1 {n} jours/2 | durante/1 {n} días/2",
    "week": "for/1 {n} weeks/2 | {n} Wochen/2 lang/1 | pendant/1 {n} semaines/2 | durante/1 {n} semanas/2",
    "month": "for/1 {n} months/2 | {n} Monate/2 lang/1 | pendant/1 {n} mois/2 | durante/1 {n} meses/2",
}

PAST_TIMES = """
yesterday/1 | gestern/1 | hier/1 | ayer/1
last/1 {weekday} | letzten/1 {weekday} | {weekday} dernier/1 | el/>1 {weekday} pasado/1
last/1 {weekday} | letzten/1 {weekday} | {weekday} dernier/1 | el/>1 {weekday} pasado/1
last/1 week/2 | letzte/1 Woche/2 | la/>2 semaine/2 dernière/1 | la/>2 semana/2 pasada/1
last/1 year/2 | letztes/1 Jahr/2 | le/>2 an/2 dernier/1 | el/>2 año/2 pasado/1
in/1 {past_year} | in/1 dem/>past_year Jahr/>past_year {past_year} | en/1 {past_year} | en/1 {past_year}
in/1 {past_year} | in/1 dem/>past_year Jahr/>past_year {past_year} | en/1 {past_year} | en/1 {past_year}
on/1 {month} {day} ,/2 {past_year} | an/1 dem/1 {day} ./>day {month} {past_year} | le/1 {day} {month} {past_year} | el/1 {day} de/>month {month} de/>past_year {past_year}
on/1 {month} {day} ,/2 {past_year} | an/1 dem/1 {day} ./>day {month} {past_year} | le/1 {day} {month} {past_year} | el/1 {day} de/>month {month} de/>past_year {past_year}
{n} days/1 ago/2 | vor/2 {n} Tagen/1 | il/2 y/2 a/2 {n} jours/1 | hace/2 {n} días/1
{n} weeks/1 ago/2 | vor/2 {n} Wochen/1 | il/2 y/2 a/2 {n} semaines/1 | hace/2 {n} semanas/1
{n} months/1 ago/2 | vor/2 {n} Monaten/1 | il/2 y/2 a/2 {n} mois/1 | hace/2 {n} meses/1
{n} years/1 ago/2 | vor/2 {n} Jahren/1 | il/2 y/2 a/2 {n} ans/1 | hace/2 {n} años/1
"""
FUTURE_TIMES = """
tomorrow/1 | morgen/1 | demain/1 | mañana/1
next/1 {weekday} | nächsten/1 {weekday} | {weekday} prochain/1 | el/>1 próximo/1 {weekday}
next/1 {weekday} | nächsten/1 {weekday} | {weekday} prochain/1 | el/>1 próximo/1 {weekday}
next/1 week/2 | nächste/1 Woche/2 | la/>2 semaine/2 prochaine/1 | la/>2 próxima/1 semana/2
next/1 year/2 | nächstes/1 Jahr/2 | le/>2 an/2 prochain/1 | el/>2 próximo/1 año/2
in/1 {future_year} | in/1 dem/>future_year Jahr/>future_year {future_year} | en/1 {future_year} | en/1 {future_year}
on/1 {month} {day} ,/2 {future_year} | an/1 dem/1 {day} ./>day {month} {future_year} | le/1 {day} {month} {future_year} | el/1 {day} de/>month {month} de/>future_year {future_year}
on/1 {month} {day} ,/2 {future_year} | an/1 dem/1 {day} ./>day {month} {future_year} | le/1 {day} {month} {future_year} | el/1 {day} de/>month {month} de/>future_year {future_year}
in/1 {n} days/2 | in/1 {n} Tagen/2 | dans/1 {n} jours/2 | dentro/1 de/1 {n} días/2
in/1 {n} weeks/2 | in/1 {n} Wochen/2 | dans/1 {n} semaines/2 | dentro/1 de/1 {n} semanas/2
in/1 {n} months/2 | in/1 {n} Monaten/2 | dans/1 {n} mois/2 | dentro/1 de/1 {n} meses/2
"""
PRESENT_TIMES = """
today/1 | heute/1 | aujourd'hui/1 | hoy/1
every/1 {weekday} | jeden/1 {weekday} | chaque/1 {weekday} | cada/1 {weekday}
every/1 {weekday} | jeden/1 {weekday} | chaque/1 {weekday} | cada/1 {weekday}
every/1 morning/2 | jeden/1 Morgen/2 | chaque/1 matin/2 | cada/1 mañana/2
in/1 {month} | in/1 dem/>month {month} | en/1 {month} | en/1 {month}
"""
CLOCK = "at/1 {hour}/2 {half}/2 | um/1 {clock}/2 Uhr/>2 | à/1 {clock}/2 | a/1 las/>1 {clock}/2"

# English | German and its word order (v2, inv: verb before the subject, vf: verb last) | French | Spanish.
JOIN = """
and | und v2 | et | y
and | und v2 | et | y
, but | , aber v2 | , mais | , pero
because | , weil vf | parce que | porque
because | , weil vf | parce que | porque
although | , obwohl vf | même si | aunque
while | , während vf | tandis que | mientras que
, so | , deshalb inv | , donc | , así que
"""
OPEN = """
since | da vf | comme | como
although | obwohl vf | même si | aunque
while | während vf | tandis que | mientras que
"""

WOMEN = (
    "Anna Maria Laura Julia Sarah Lisa Emma Sophia Clara Eva Nina Paula Martina Sandra Monika Petra "
    "Claudia Andrea Katharina Johanna Christina Barbara Sabine Susanne Teresa Isabel Carmen Lucia Elena "
    "Olga Natalia Irina Vera Rosa Greta Ingrid Astrid Linda Diana Victoria Alice Charlotte Camilla "
    "Pauline Marie Sophie Amelia Nora Miriam Ruth Rebecca Rachel Leila Fatima Aisha Yuki Mei Priya "
    "Valentina Bianca Carla Daniela"
)
MEN = (
    "Peter Paul Martin Thomas Daniel David Michael Stefan Robert Richard Erik Oscar Victor Anton Simon "
    "Jonathan Benjamin Sebastian Christian Florian Julian Adrian Fabian Tobias Matthias Lukas Niklas "
    "Jonas Felix Max Leo Bruno Carlos Diego Pablo Pedro Miguel Antonio Marco Mario Roberto Paolo Giovanni "
    "Luigi Ivan Boris Igor Viktor Omar Karim Ahmed Ali Samir Rajesh Arjun Kenji Takashi Wei Jun Edgar "
    "Arthur Oliver"
)
# Whose chair it is; none ends in s, x or z, where German writes an apostrophe.
OWNERS = "Anna Maria Laura Julia Emma Clara Elena Nora Carmen Peter Paul Martin Daniel Robert Oscar Victor Anton Marco"
SURNAMES = (
    "Keller Meyer Schmidt Weber Wagner Becker Hoffmann Richter Klein Wolf Neumann Schwarz Zimmermann "
    "Braun Krüger Hartmann Lange Werner Lehmann Köhler Vogel Winkler Berger Frank Roth Beck Lorenz "
    "Baumann Dubois Moreau Laurent Lefebvre Leroy Roux Fournier Girard Bonnet Dupont Lambert Fontaine "
    "Rousseau Vincent Muller Faure Mercier García González López Martínez Rodríguez Fernández Pérez "
    "Sánchez Ramírez Torres Flores Rivera Gómez Díaz Reyes Morales Ortiz Gutiérrez Chávez Ramos Vargas "
    "Castillo Romero Silva Santos Oliveira Costa Pereira Almeida Rossi Russo Ferrari Esposito Bianchi "
    "Romano Colombo Ricci Marino Greco Conti Smith Jones Taylor Brown Williams Wilson Johnson Davies "
    "Robinson Wright Thompson Evans Walker White Roberts Green Wood Clarke Jackson Harris Lewis Young "
    "Allen King Scott Baker Nelson Carter Mitchell Turner Parker Collins Andersson Johansson Karlsson "
    "Nilsson Hansen Larsen Olsen Jensen Nielsen Virtanen Korhonen Novak Kowalski Nowak Horvat Petrov "
    "Ivanov Popov Tanaka Suzuki Watanabe Yamamoto Nakamura Kobayashi Chen Wang Zhang Liu Kim Park Nguyen "
    "Tran Singh Kumar Patel Sharma Khan Hassan Hussein Demir Yilmaz Kaya"
)
# City | German | French | Spanish, beside the exemplar cities of CLDR.
CITIES = """
Paris | Paris | Paris | París
Berlin | Berlin | Berlin | Berlín
Munich | München | Munich | Múnich
Cologne | Köln | Cologne | Colonia
Hamburg | Hamburg | Hambourg | Hamburgo
Dresden | Dresden | Dresde | Dresde
Frankfurt | Frankfurt | Francfort | Fráncfort
Leipzig | Leipzig | Leipzig | Leipzig
Stuttgart | Stuttgart | Stuttgart | Stuttgart
Bremen | Bremen | Brême | Bremen
Basel | Basel | Bâle | Basilea
Geneva | Genf | Genève | Ginebra
Bern | Bern | Berne | Berna
Salzburg | Salzburg | Salzbourg | Salzburgo
Milan | Mailand | Milan | Milán
Turin | Turin | Turin | Turín
Venice | Venedig | Venise | Venecia
Florence | Florenz | Florence | Florencia
Naples | Neapel | Naples | Nápoles
Genoa | Genua | Gênes | Génova
Palermo | Palermo | Palerme | Palermo
Bologna | Bologna | Bologne | Bolonia
Lyon | Lyon | Lyon | Lyon
Nice | Nizza | Nice | Niza
Bordeaux | Bordeaux | Bordeaux | Burdeos
Strasbourg | Straßburg | Strasbourg | Estrasburgo
Toulouse | Toulouse | Toulouse | Toulouse
Nantes | Nantes | Nantes | Nantes
Madrid | Madrid | Madrid | Madrid
Barcelona | Barcelona | Barcelone | Barcelona
Seville | Sevilla | Séville | Sevilla
Valencia | Valencia | Valence | Valencia
Zaragoza | Saragossa | Saragosse | Zaragoza
Granada | Granada | Grenade | Granada
Porto | Porto | Porto | Oporto
Edinburgh | Edinburgh | Édimbourg | Edimburgo
Manchester | Manchester | Manchester | Mánchester
Oxford | Oxford | Oxford | Oxford
Antwerp | Antwerpen | Anvers | Amberes
Bruges | Brügge | Bruges | Brujas
Ghent | Gent | Gand | Gante
Amsterdam | Amsterdam | Amsterdam | Ámsterdam
Rotterdam | Rotterdam | Rotterdam | Róterdam
Stockholm | Stockholm | Stockholm | Estocolmo
Oslo | Oslo | Oslo | Oslo
Budapest | Budapest | Budapest | Budapest
Krakow | Krakau | Cracovie | Cracovia
Gdansk | Danzig | Gdansk | Gdansk
Wroclaw | Breslau | Wroclaw | Breslavia
Riga | Riga | Riga | Riga
Vilnius | Vilnius | Vilnius | Vilna
Thessaloniki | Thessaloniki | Thessalonique | Salónica
Istanbul | Istanbul | Istanbul | Estambul
Ankara | Ankara | Ankara | Ankara
Jerusalem | Jerusalem | Jérusalem | Jerusalén
Beirut | Beirut | Beyrouth | Beirut
Beijing | Peking | Pékin | Pekín
Shanghai | Shanghai | Shanghai | Shanghái
Seoul | Seoul | Séoul | Seúl
Kyoto | Kyoto | Kyoto | Kioto
Bangkok | Bangkok | Bangkok | Bangkok
Mumbai | Mumbai | Bombay | Bombay
Boston | Boston | Boston | Boston
Chicago | Chicago | Chicago | Chicago
Philadelphia | Philadelphia | Philadelphie | Filadelfia
Toronto | Toronto | Toronto | Toronto
Montreal | Montreal | Montréal | Montreal
Lima | Lima | Lima | Lima
Santiago | Santiago | Santiago | Santiago
Sydney | Sydney | Sydney | Sídney
Melbourne | Melbourne | Melbourne | Melbourne
Nairobi | Nairobi | Nairobi | Nairobi
Tunis | Tunis | Tunis | Túnez
Marrakesh | Marrakesch | Marrakech | Marrakech
"""
