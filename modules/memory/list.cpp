// Bodies of qorus.memory:list.
module qorus.memory;
import qorus.std;

namespace qorus {

Result<void*> room_for(std::size_t count, std::size_t size, std::size_t alignment) noexcept {
  const auto bytes = (Checked(count) * size).get("List");
  if (!bytes) return fail(bytes.error());
  void* const room = ::operator new(*bytes, std::align_val_t{alignment}, std::nothrow);
  if (!room) return fail(Errc::out_of_memory, "List", "the system has no more memory");
  return room;
}

Status move_to_room_for(std::size_t count, std::size_t size, std::size_t alignment, void*& data,
                        std::size_t used) noexcept {
  auto room = room_for(count, size, alignment);
  if (!room) return fail(room.error());
  if (used) std::memcpy(*room, data, used * size);
  free_room(data, alignment);
  data = *room;
  return {};
}

void free_room(void* data, std::size_t alignment) noexcept {
  ::operator delete(data, std::align_val_t{alignment}, std::nothrow);
}

}  // namespace qorus
