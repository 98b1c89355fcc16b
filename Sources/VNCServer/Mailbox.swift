import LinuxSystem

/// Messages for one thread from others.
final class Mailbox<Message: Sendable>: Sendable {
  /// Readable while there is something to take.
  var descriptor: FileDescriptor { event.descriptor }

  private let event: EventDescriptor
  private let messages = Guarded<[Message]>([])

  init() throws(SystemError) {
    event = try EventDescriptor()
  }

  /// Returns how many messages wait.
  @discardableResult
  func post(_ message: Message) -> Int {
    let count = messages.withLock { messages in
      messages.append(message)
      return messages.count
    }
    if count == 1 { event.signal() }
    return count
  }

  func takeAll() -> [Message] {
    event.drain()
    return messages.withLock { messages in
      let taken = messages
      messages = []
      return taken
    }
  }
}
