import Display

/// The display link: what a VMM, or a display, may send.
let displayLinkTargets: [String: FuzzTarget] = [
  "display-link": { bytes, count in
    guard let message = try? DisplayLinkMessage(decoding: input(bytes, count)) else { return }
    // What was accepted means the same when it is sent on.
    let again = try? DisplayLinkMessage(decoding: message.encoded())
    precondition(again == message, "a message changed on its way")
  }
]
