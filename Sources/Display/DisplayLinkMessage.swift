import CarrelBase
import DeviceModel

/// One packet of the display link, between a VMM and one display of it.
///
/// The link is a Unix `SOCK_SEQPACKET`. The VMM listens; any number of displays
/// connect. Packets, little-endian, first byte the type:
///
/// | type | name      | way         | fields after the type                                    |
/// |------|-----------|-------------|----------------------------------------------------------|
/// | 1    | hello     | both        | `"CRLK"`, version u16, name (UTF-8, rest)                |
/// | 2    | surface   | VMM →       | source u8, format u8, offset u64, stride u32, width u16, height u16 |
/// | 3    | damage    | VMM →       | sequence u32, rectangles: x, y, width, height u16 each   |
/// | 4    | cursor    | VMM →       | x, y of the hot spot, width, height u16; pixels: blue, green, red, alpha (premultiplied) |
/// | 5    | audio     | VMM →       | 0: the sound ends; 1: it begins, rate u32; 2: lost u32, frames (since version 2) |
/// | 6    | leds      | VMM →       | bit 0 scroll, 1 number, 2 capitals lock                  |
/// | 7    | bell      | VMM →       |                                                          |
/// | 8    | name      | VMM →       | UTF-8                                                    |
/// | 9    | recording | VMM →       | whether the guest records u8 (since version 2)           |
/// | 16   | key       | display →   | `KeyCode` u16, pressed u8                                |
/// | 17   | pointer   | display →   | x, y u16 (0 … 65535 over the picture), buttons u8, wheel i8, horizontal wheel i8 |
/// | 18   | resize    | display →   | width, height u16                                        |
/// | 19   | clipboard | display →   | UTF-8                                                    |
/// | 20   | power     | display →   | 0 shut down, 1 reboot, 2 reset                           |
/// | 21   | pace      | display →   | sequence u32                                             |
/// | 22   | listen    | display →   | bit 0 sound is wanted, 1 a microphone is there (since version 2) |
/// | 23   | microphone | display →  | frames (since version 2)                                 |
///
/// **Beginning.** The display says hello first; the VMM answers hello and at once
/// `surface`, `leds`, `cursor` as they are. A VMM that speaks the display's version
/// answers with that, and it holds for the connection; otherwise it answers with its own
/// newest and closes, and a display that speaks that connects again with it. A display that
/// was given a path connects when somebody listens there, now or later, and again after the
/// VMM went.
///
/// **Memory.** A surface lies in one of the memories of `Scanout.Source`. The first
/// `surface` packet on a connection that names a source carries its memfd by
/// SCM_RIGHTS; it holds for the connection. The VMM seals the size; the display
/// refuses memory without F_SEAL_SHRINK, and checks that the surface lies within it.
/// A new VMM is a new connection, with new memories.
///
/// **Pace.** `pace` asks for the next damage, naming the sequence of the last one
/// taken (0 after `hello` and after `surface`). The VMM collects damage and sends
/// one packet per `pace`; it looks for damage only while somebody asks. `surface`
/// needs no asking; it makes everything damaged and withdraws damage not yet sent.
///
/// **Sizes.** Each `surface` has the size of the guest's mode, and the display makes
/// it the viewer's. A viewer that knows neither DesktopSize nor ExtendedDesktopSize
/// keeps the size it was told at first: it sees the picture centred between black
/// bars, made smaller (never larger) in proportion where it does not fit, and its
/// pointer spans the picture. `resize` says what a viewer would like; a VMM may
/// ignore it, and answers, if at all, with a `surface` of that or any other size. The
/// viewer was told "prohibited" by then and learns of a new size as of any mode change.
///
/// **Sound.** A frame is left i16, right i16; those of a microphone are 48000 a second. A
/// VMM sends sound to displays that want it, and to no others. `audio` says the rate when
/// the guest begins to play, then what it played in the time that has passed, and the end
/// when it falls silent. What a display does not take waits for half a second; then the
/// oldest is left out, and `lost` counts the frames left out before these. `recording` goes
/// to displays that have a microphone: at once as it is, and with each change. While the
/// guest records they send what the microphone hears, as it hears it, and what comes faster
/// is left out; the VMM listens to one of them, the one that was there first. Of what the
/// guest does not take in half a second the oldest is left out, and where nothing came it
/// records silence.
///
/// **Between VMMs.** Without a VMM, or before its first `surface`, a display shows a
/// status screen of its own in the last picture's size (1024×768 before the first),
/// with no pointer and all lights off. Keys that were down count as let go of; what the
/// viewer types goes nowhere. It keeps the viewer and asks it for nothing.
///
/// **Errors.** Whoever receives a malformed packet closes the connection.
public enum DisplayLinkMessage: Hashable, Sendable {
  case hello(version: UInt16, name: String)
  case surface(Scanout)
  case damage(sequence: UInt32, [Rect])
  case cursor(CursorImage)
  case leds(KeyboardLEDs)
  case bell
  case name(String)
  case audio(SoundEvent)
  case recording(Bool)
  case key(KeyCode, pressed: Bool)
  case pointer(x: UInt16, y: UInt16, buttons: PointerButtons, wheel: Int8, horizontalWheel: Int8)
  case resize(width: Int, height: Int)
  case clipboard(String)
  case power(PowerRequest)
  case pace(sequence: UInt32)
  case listen(sound: Bool, microphone: Bool)
  case microphone([AudioFrame])

  /// The newest version of the link that this code speaks; it speaks all before it, too.
  public static let version: UInt16 = 2
  /// No packet is longer.
  public static let maximumSize = 96 * 1024
  /// No `damage` has more rectangles.
  public static let maximumRects = 512
  /// No text is longer, in UTF-8.
  public static let maximumText = 64 * 1024

  /// The most bytes of a desktop's name.
  public static let maximumName = 256
  /// No picture is wider or higher.
  public static let maximumSide = 8192
  /// No packet has more frames of sound.
  public static let maximumFrames = 2400
  /// Frames a second that sound may have.
  public static let soundRates = 4000...192_000
  /// Those of a microphone.
  public static let microphoneRate = 48000
  /// Frames that wait for whoever does not take them, half a second of them.
  public static let maximumWaitingFrames = 24000

  /// What a VMM says about the guest's sound.
  public enum SoundEvent: Hashable, Sendable {
    case end
    case begin(rate: Int)
    /// `lost`: how many before them were left out.
    case frames([AudioFrame], lost: UInt32)
  }

  /// What a viewer may ask of the guest's power.
  public enum PowerRequest: UInt8, Hashable, Sendable {
    case shutdown = 0
    case reboot = 1
    case reset = 2
  }
}

/// A packet that is not one, or a link that cannot be used.
public struct DisplayLinkError: CarrelError {
  public enum Kind: Hashable, Sendable {
    case malformed
    case version
    case surface
    case connection
  }

  public let kind: Kind
  public let context: String
  public let cause: (any Error)?

  public init(_ kind: Kind, _ context: String, cause: (any Error)? = nil) {
    self.kind = kind
    self.context = context
    self.cause = cause
  }
}

extension DisplayLinkMessage {
  enum Code: UInt8 {
    case hello = 1
    case surface
    case damage
    case cursor
    case audio
    case leds
    case bell
    case name
    case recording
    case key = 16
    case pointer
    case resize
    case clipboard
    case power
    case pace
    case listen
    case microphone
  }

  /// The first version of the link that has this message.
  public var firstVersion: UInt16 {
    switch self {
    case .audio, .recording, .listen, .microphone: 2
    default: 1
    }
  }

  private static let magic = Array("CRLK".utf8)

  // MARK: Encoding

  /// The packet's bytes. Values beyond the limits above are cut to them.
  public func encoded() -> [UInt8] {
    var writer = LinkWriter()
    switch self {
    case .hello(let version, let name):
      writer.write(Code.hello.rawValue)
      writer.write(Self.magic)
      writer.write(version)
      writer.write(Self.bounded(name, limit: Self.maximumName))
    case .surface(let scanout):
      writer.write(Code.surface.rawValue)
      Self.write(scanout, to: &writer)
    case .damage(let sequence, let rects):
      writer.write(Code.damage.rawValue)
      writer.write(sequence)
      for rect in rects.prefix(Self.maximumRects) { Self.write(rect, to: &writer) }
    case .cursor(let image):
      writer.write(Code.cursor.rawValue)
      for field in [image.hotX, image.hotY, image.width, image.height] {
        writer.write(UInt16(clamping: field))
      }
      writer.write(image.pixels)
    case .leds(let leds):
      writer.write(Code.leds.rawValue)
      writer.write(leds.rawValue)
    case .bell:
      writer.write(Code.bell.rawValue)
    case .name(let name):
      writer.write(Code.name.rawValue)
      writer.write(Self.bounded(name, limit: Self.maximumName))
    case .audio, .recording, .listen, .microphone: encodeSound(to: &writer)
    default:
      encodeInput(to: &writer)
    }
    return writer.bytes
  }

  private func encodeInput(to writer: inout LinkWriter) {
    switch self {
    case .key(let code, let pressed):
      writer.write(Code.key.rawValue)
      writer.write(code.rawValue)
      writer.write(UInt8(pressed ? 1 : 0))
    case .pointer(let x, let y, let buttons, let wheel, let horizontalWheel):
      writer.write(Code.pointer.rawValue)
      writer.write(x)
      writer.write(y)
      writer.write(buttons.rawValue)
      writer.write(wheel)
      writer.write(horizontalWheel)
    case .resize(let width, let height):
      writer.write(Code.resize.rawValue)
      writer.write(UInt16(clamping: width))
      writer.write(UInt16(clamping: height))
    case .clipboard(let text):
      writer.write(Code.clipboard.rawValue)
      writer.write(Self.bounded(text, limit: Self.maximumText))
    case .power(let request):
      writer.write(Code.power.rawValue)
      writer.write(request.rawValue)
    case .pace(let sequence):
      writer.write(Code.pace.rawValue)
      writer.write(sequence)
    default:
      break
    }
  }

  private static func write(_ scanout: Scanout, to writer: inout LinkWriter) {
    writer.write(scanout.source.rawValue)
    writer.write(scanout.format.rawValue)
    writer.write(UInt64(clamping: scanout.offset))
    writer.write(UInt32(clamping: scanout.stride))
    writer.write(UInt16(clamping: scanout.width))
    writer.write(UInt16(clamping: scanout.height))
  }

  private static func write(_ rect: Rect, to writer: inout LinkWriter) {
    for field in [rect.x, rect.y, rect.width, rect.height] {
      writer.write(UInt16(clamping: field))
    }
  }

  /// UTF-8 cut before a character that would not fit.
  private static func bounded(_ text: String, limit: Int) -> [UInt8] {
    let bytes = Array(text.utf8)
    guard bytes.count > limit else { return bytes }
    var end = limit
    while end > 0 && bytes[end] & 0xC0 == 0x80 { end -= 1 }
    return Array(bytes[..<end])
  }

  // MARK: Decoding

  /// Reads a packet that the other side, trusted or not, sent.
  public init(decoding bytes: [UInt8]) throws(DisplayLinkError) {
    guard bytes.count <= Self.maximumSize else {
      throw DisplayLinkError(.malformed, "display link: a message of \(bytes.count) bytes")
    }
    var reader = LinkReader(bytes)
    let type: UInt8 = try reader.read()
    guard let code = Code(rawValue: type) else {
      throw DisplayLinkError(.malformed, "display link: unknown message type \(type)")
    }
    self = try Self.read(code, &reader)
    try reader.end()
  }

  private static func read(_ code: Code, _ reader: inout LinkReader)
    throws(DisplayLinkError) -> DisplayLinkMessage
  {
    switch code {
    case .hello:
      guard try reader.read(count: 4) == magic else {
        throw DisplayLinkError(.malformed, "display link: the peer is no display link")
      }
      return .hello(
        version: try reader.read(), name: try reader.readText(limit: maximumName))
    case .surface: return .surface(try readScanout(&reader))
    case .damage: return try readDamage(&reader)
    case .cursor: return .cursor(try readCursor(&reader))
    case .audio: return .audio(try readSound(&reader))
    case .bell: return .bell
    case .leds: return .leds(KeyboardLEDs(rawValue: try reader.read(UInt8.self) & 7))
    case .name: return .name(try reader.readText(limit: maximumName))
    case .recording: return .recording(try reader.read(UInt8.self) != 0)
    case .key:
      return .key(KeyCode(try reader.read()), pressed: try reader.read(UInt8.self) != 0)
    case .pointer:
      return .pointer(
        x: try reader.read(), y: try reader.read(),
        buttons: PointerButtons(rawValue: try reader.read(UInt8.self) & 31),
        wheel: try reader.read(), horizontalWheel: try reader.read())
    case .resize:
      return .resize(width: try readSide(&reader), height: try readSide(&reader))
    case .clipboard: return .clipboard(try reader.readText(limit: maximumText))
    case .power:
      guard let request = PowerRequest(rawValue: try reader.read()) else {
        throw DisplayLinkError(.malformed, "display link: unknown power request")
      }
      return .power(request)
    case .pace: return .pace(sequence: try reader.read())
    case .listen:
      let wanted: UInt8 = try reader.read()
      return .listen(sound: wanted & 1 != 0, microphone: wanted & 2 != 0)
    case .microphone: return .microphone(try readFrames(&reader))
    }
  }

  private static func readSide(_ reader: inout LinkReader) throws(DisplayLinkError) -> Int {
    let side = Int(try reader.read(UInt16.self))
    guard side > 0 && side <= maximumSide else {
      throw DisplayLinkError(.malformed, "display link: a side of \(side) pixels")
    }
    return side
  }

  private static func readScanout(_ reader: inout LinkReader)
    throws(DisplayLinkError) -> Scanout
  {
    guard let source = Scanout.Source(rawValue: try reader.read()),
      let format = PixelFormat(rawValue: try reader.read())
    else {
      throw DisplayLinkError(.malformed, "display link: unknown surface source or format")
    }
    let offset: UInt64 = try reader.read()
    let stride: UInt32 = try reader.read()
    let scanout = Scanout(
      source: source, offset: Int(clamping: offset), stride: Int(stride),
      width: try readSide(&reader), height: try readSide(&reader), format: format)
    guard scanout.stride >= scanout.width * format.bytesPerPixel else {
      throw DisplayLinkError(.malformed, "display link: a surface's rows overlap")
    }
    return scanout
  }

  private static func readDamage(_ reader: inout LinkReader)
    throws(DisplayLinkError) -> DisplayLinkMessage
  {
    let sequence: UInt32 = try reader.read()
    guard reader.remaining / 8 <= maximumRects else {
      throw DisplayLinkError(.malformed, "display link: too many rectangles")
    }
    var rects: [Rect] = []
    while reader.remaining > 0 {
      rects.append(
        Rect(
          x: Int(try reader.read(UInt16.self)), y: Int(try reader.read(UInt16.self)),
          width: Int(try reader.read(UInt16.self)), height: Int(try reader.read(UInt16.self))))
    }
    return .damage(sequence: sequence, rects)
  }

  private static func readCursor(_ reader: inout LinkReader)
    throws(DisplayLinkError) -> CursorImage
  {
    let hotX = Int(try reader.read(UInt16.self))
    let hotY = Int(try reader.read(UInt16.self))
    let width = Int(try reader.read(UInt16.self))
    let height = Int(try reader.read(UInt16.self))
    let pixels = try reader.read(count: reader.remaining)
    guard
      let image = CursorImage(
        width: width, height: height, hotX: hotX, hotY: hotY, pixels: pixels)
    else {
      throw DisplayLinkError(.malformed, "display link: a cursor of \(width)×\(height)")
    }
    return image
  }
}

extension Scanout {
  /// How many bytes of its memory the picture spans; `nil` when that overflows.
  public var byteSpan: Int? {
    guard width > 0 && height > 0 && offset >= 0 && stride >= 0 else { return nil }
    let (rows, rowsOverflow) = stride.multipliedReportingOverflow(by: height - 1)
    let (last, lastOverflow) = rows.addingReportingOverflow(width * format.bytesPerPixel)
    return rowsOverflow || lastOverflow ? nil : last
  }

  /// Whether the whole picture lies within `size` bytes of memory.
  public func fits(in size: Int) -> Bool {
    guard let byteSpan else { return false }
    let (end, overflow) = offset.addingReportingOverflow(byteSpan)
    return !overflow && end <= size
  }
}
