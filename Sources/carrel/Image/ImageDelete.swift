import ArgumentParser
import ControlAPI
import ControlClient

struct ImageDelete: Verb {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Deletes an image of the library, or stops making it.",
    discussion: "An image that a pool is made from stays.")

  @Argument(help: "Name of the image.", completion: .custom(Completions.images))
  var name: String

  @OptionGroup var options: CommonOptions

  func call(_ client: ControlClient, _ terminal: Terminal) async throws -> Done {
    try await client.delete(APIPath("images", name))
    return Done(deleted: name)
  }

  func render(_ answer: Done, _ terminal: Terminal) -> String { "Image \(name) is deleted." }
}
