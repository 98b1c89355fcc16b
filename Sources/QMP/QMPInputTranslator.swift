/// Turns the events of `input-send-event`, which name one axis or button each, into
/// whole pointer positions.
struct QMPInputTranslator {
  private var x: UInt16 = 0
  private var y: UInt16 = 0
  private var buttons = QMPButtons()
  private var isAbsolute = false

  private static let buttonBits: [String: UInt8] = [
    "left": 1, "middle": 2, "right": 4, "side": 8, "extra": 16,
  ]
  private static let maximumAbsolute = 0x7FFF

  /// All events of one command, which the device sees together.
  mutating func translate(_ events: [JSON]) throws(QMPError) -> [QMPInput] {
    // An error leaves nothing half done.
    var copy = self
    var result: [QMPInput] = []
    var motion = Motion()
    for event in events { try copy.take(event, &motion, &result) }
    copy.flush(&motion, &result)
    self = copy
    return result
  }

  private struct Motion {
    var x = 0
    var y = 0
    var moved = false
  }

  private mutating func take(_ event: JSON, _ motion: inout Motion, _ result: inout [QMPInput])
    throws(QMPError)
  {
    var event = try QMPArguments(event)
    let type = try event.string("type")
    var data = try event.object("data")
    try event.end()
    switch type {
    case "key":
      flush(&motion, &result)
      let pressed = try data.boolean("down")
      let code = try Self.scanCode(try data.object("key"))
      result.append(.key(code, pressed: pressed))
    case "btn":
      flush(&motion, &result)
      let pressed = try data.boolean("down")
      try press(try data.string("button"), pressed, &result)
    case "rel", "abs":
      try move(type, try data.string("axis"), try data.integer("value"), &motion)
    default: throw QMPError(.generic, "Invalid parameter '\(type)'")
    }
    try data.end()
  }

  private mutating func move(
    _ type: String, _ axis: String, _ value: Int, _ motion: inout Motion
  ) throws(QMPError) {
    guard axis == "x" || axis == "y" else {
      throw QMPError(.generic, "Invalid parameter '\(axis)'")
    }
    motion.moved = true
    isAbsolute = type == "abs"
    if isAbsolute {
      let limited = min(max(value, 0), Self.maximumAbsolute)
      let scaled = UInt16(limited * 65_535 / Self.maximumAbsolute)
      if axis == "x" { x = scaled } else { y = scaled }
    } else {
      let limited = min(max(value, -32_768), 32_767)
      if axis == "x" { motion.x += limited } else { motion.y += limited }
    }
  }

  private mutating func press(_ button: String, _ pressed: Bool, _ result: inout [QMPInput])
    throws(QMPError)
  {
    let wheels = [
      "wheel-up": (1, 0), "wheel-down": (-1, 0), "wheel-left": (0, -1), "wheel-right": (0, 1),
    ]
    if let (vertical, horizontal) = wheels[button] {
      if pressed {
        result.append(
          .relative(x: 0, y: 0, wheel: vertical, horizontalWheel: horizontal, buttons: buttons))
      }
      return
    }
    guard let bit = Self.buttonBits[button] else {
      throw QMPError(.generic, "Invalid parameter '\(button)'")
    }
    let mask = QMPButtons(rawValue: bit)
    if pressed { buttons.insert(mask) } else { buttons.remove(mask) }
    result.append(position(Motion()))
  }

  private func flush(_ motion: inout Motion, _ result: inout [QMPInput]) {
    guard motion.moved else { return }
    result.append(position(motion))
    motion = Motion()
  }

  private func position(_ motion: Motion) -> QMPInput {
    isAbsolute
      ? .absolute(x: x, y: y, buttons: buttons)
      : .relative(x: motion.x, y: motion.y, wheel: 0, horizontalWheel: 0, buttons: buttons)
  }

  /// A `KeyValue`: a name or a number.
  static func scanCode(_ key: QMPArguments) throws(QMPError) -> UInt16 {
    var key = key
    let type = try key.string("type")
    let code: UInt16?
    switch type {
    case "qcode":
      let name = try key.string("data")
      guard name != "unmapped" else { throw QMPError(.generic, "Key 'unmapped' has no code") }
      code = QKeyCode.scanCode(of: name)
      if code == nil {
        throw QMPError(.generic, "Parameter 'data' does not accept value '\(name)'")
      }
    case "number":
      let number = try key.integer("data")
      code = QKeyCode.scanCode(ofNumber: number)
    default: throw QMPError(.generic, "Parameter 'type' does not accept value '\(type)'")
    }
    try key.end()
    guard let code else { throw QMPError(.generic, "Invalid key number") }
    return code
  }
}
