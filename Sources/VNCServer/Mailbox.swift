import LinuxSystem

/// Messages for one thread from others.
final class Mailbox<Message: Sendable>: Sendable {
  /// Readable while there is something to take.
  var descriptor: FileDescriptor { event.descriptor }

  private let event: EventDescriptor
  private struct Content {
    var messages: [Message] = []
    var bytes = 0
  }
  private let content = Guarded(Content())

  init() throws(SystemError) {
    event = try EventDescriptor()
  }

  /// Returns how many messages wait, and how many bytes they were said to have.
  @discardableResult
  func post(_ message: Message, bytes: Int = 0) -> (count: Int, bytes: Int) {
    let waiting = content.withLock { content in
      content.messages.append(message)
      content.bytes += bytes
      return (count: content.messages.count, bytes: content.bytes)
    }
    if waiting.count == 1 { event.signal() }
    return waiting
  }

  func takeAll() -> [Message] {
    event.drain()
    return content.withLock { content in
      defer { content = Content() }
      return content.messages
    }
  }
}
